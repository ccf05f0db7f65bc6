#pragma once

#include <string>
#include <vector>

#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/adapter_file.hpp"
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

/// The blocks of a tower, and the width of each.
const model::TowerArchitecture& architecture_of(const model::Clip& clip, Tower tower);

/// The adapter of the tensors that a file holds, by their names there. `updates`: text tower first,
/// ascending, q k v o. `problems`: what is already known to be wrong. `source` begins the CheckpointError,
/// which lists all of them and every tensor that is missing, unexpected, wrongly shaped or of no floating
/// type.
Adapter assemble(const std::string& source, const model::Clip& clip, const LoraOptions& options,
                 const std::vector<StoredUpdate>& updates, const io::StateDict& tensors,
                 std::vector<std::string> problems = {});

// One pair for each format. `source` begins every CheckpointError.
void write_authors(const std::filesystem::path& path, const Adapter& adapter, const AdapterContext& context);
LoadedAdapter read_authors(const std::filesystem::path& path, const std::string& source,
                           const model::Clip& clip);
void write_peft(const std::filesystem::path& path, const Adapter& adapter, const AdapterContext& context);
LoadedAdapter read_peft(const std::filesystem::path& folder, const std::string& source,
                        const model::Clip& clip);
void write_safetensors_adapter(const std::filesystem::path& path, const Adapter& adapter,
                               const AdapterContext& context);
LoadedAdapter read_safetensors_adapter(const std::filesystem::path& path, const std::string& source,
                                       const model::Clip& clip);

}  // namespace clip_lora::lora
