#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "clip_lora/lora/adapter_description.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/lora/lora_adapter.hpp"
#include "places.hpp"
#include "projection.hpp"

namespace clip_lora::lora {

/// An update that a file must hold.
struct StoredUpdate {
  Tower tower;
  std::int64_t index;  ///< of its block
  Projection projection;
  std::string a_name;  ///< in the file
  std::string b_name;
  std::int64_t rank;
  double scaling;
};

/// The adapter of the tensors that a file holds, by their names there. `updates`: text tower first,
/// ascending, q k v o. `problems`: what is already known to be wrong. `source` begins the CheckpointError,
/// which lists all of them and every tensor that is missing, unexpected, wrongly shaped or of no floating
/// type.
std::shared_ptr<LoraAdapter> assemble(const std::string& source, const model::Clip& clip,
                                      const LoraOptions& options, const std::vector<StoredUpdate>& updates,
                                      const io::StateDict& tensors, std::vector<std::string> problems = {});

/// Copies the tensors that a file holds into those of an adapter, by name. Throws CheckpointError as
/// assemble.
void fill_in(const std::string& source, const io::StateDict& adapter, const io::StateDict& stored,
             std::vector<std::string> problems = {});

/// "adapter 'path'", which begins every CheckpointError about it.
std::string source_of(const std::filesystem::path& path);

/// Told by the first bytes of a file: a zip archive's, or a JSON object after a header length; which of the
/// two that are archives, by the names in it. A folder is PEFT's. Nothing for anything else; whether it is an
/// adapter at all is for the format's reader to say. Throws CheckpointError for an archive that is broken.
std::optional<AdapterFormat> format_of(const std::filesystem::path& path);

/// A description with what the tensors say.
AdapterDescription description_of(AdapterFormat format, nlohmann::ordered_json settings,
                                  const io::StateDict& tensors, nlohmann::ordered_json context);

// Three for each format that is written. `source` is source_of(path). Nothing is described where there is no
// adapter.
void write_authors(const std::filesystem::path& path, const LoraAdapter& adapter,
                   const AdapterContext& context);
LoadedAdapter read_authors(const std::filesystem::path& path, const std::string& source,
                           const model::Clip& clip);
std::optional<AdapterDescription> describe_authors(const std::filesystem::path& path,
                                                   const std::string& source);
void write_peft(const std::filesystem::path& path, const LoraAdapter& adapter, const AdapterContext& context);
LoadedAdapter read_peft(const std::filesystem::path& folder, const std::string& source,
                        const model::Clip& clip);
std::optional<AdapterDescription> describe_peft(const std::filesystem::path& folder,
                                                const std::string& source);
void write_safetensors_adapter(const std::filesystem::path& path, const Adapter& adapter,
                               const AdapterContext& context);
LoadedAdapter read_safetensors_adapter(const std::filesystem::path& path, const std::string& source,
                                       const model::Clip& clip);
std::optional<AdapterDescription> describe_safetensors_adapter(const std::filesystem::path& path,
                                                               const std::string& source);

/// Whether an archive holds R-Adapter's tensors, under the release's names.
bool is_r_adapter_release(const io::PickleValue& root);
// Of a file for which that is true.
LoadedAdapter read_r_adapter_release(const std::filesystem::path& path, const std::string& source,
                                     const model::Clip& clip);
AdapterDescription describe_r_adapter_release(const std::filesystem::path& path, const std::string& source);

}  // namespace clip_lora::lora
