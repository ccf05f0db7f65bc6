#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "clip_lora/lora/adapter.hpp"

namespace clip_lora::lora {

/// How an adapter is stored; told by content.
enum class AdapterFormat {
  kAuthors,  ///< `.pt` of the CLIP-LoRA release: one rank and alpha, layers counted from the text tower on
  kPeft,     ///< a folder with adapter_config.json and adapter_model.safetensors (or .bin), names of Hugging
             ///< Face's CLIPModel
  kSafetensors,     ///< ours: one file, names of Adapter::state_dict(), everything else in the metadata
  kRAdapterRelease  ///< `.pt` of the R-Adapter release: a training's checkpoint, the whole CLIP in it; only
                    ///< read
};

/// "authors", "peft", "safetensors", "r_adapter_release".
std::string to_string(AdapterFormat format);
AdapterFormat parse_adapter_format(const std::string& name);  ///< throws ConfigError with the nearest name

/// The format that a fresh adapter is saved in: the authors' if that can hold its method, else ours.
AdapterFormat file_format(const Adapter& adapter);

/// What an adapter was trained for, so that it is not used for something else. Kept as JSON: in the authors'
/// file under a metadata key of its own, `clip_lora`, which their code does not look at; in a PEFT folder as
/// `clip_lora.json`; in ours in the header's metadata.
struct AdapterContext {
  std::string backbone;              ///< e.g. "ViT-B/16"
  std::string backbone_fingerprint;  ///< of model::fingerprint
  std::string dataset;
  std::vector<std::string> class_names;
  std::vector<std::string> templates;
  nlohmann::ordered_json preprocessing;  ///< see image::Preprocessing
  double scale = 1.0;                    ///< that it is meant to be merged at: see Adapter::adapted

  bool operator==(const AdapterContext&) const = default;
};

/// A context as the JSON that every format keeps.
nlohmann::ordered_json context_json(const AdapterContext& context);

struct LoadedAdapter {
  std::shared_ptr<Adapter> adapter;  ///< on the model's device, float32, not attached
  AdapterFormat format;
  std::optional<AdapterContext> context;  ///< nothing if the file came from elsewhere
  double scale =
      1.0;  ///< that it is meant to be merged at: the context's, or else what its release merges at
};

/// Writes `path` in `format`: a file, for kPeft a folder. A file or a new folder is there whole or not at
/// all; in a folder that is not empty the three files are replaced, each whole, and others stay. Throws
/// ConfigError if it cannot be written, or if the format cannot say what the adapter is (kRAdapterRelease:
/// ever; kAuthors and kPeft: another method than LoRA; kAuthors: ranks, scalings, projections or layers that
/// differ between blocks; kAuthors and kPeft: scale 0). What is written in kAuthors is read by
/// `torch.load(weights_only=True)`, in kPeft by PEFT's `PeftModel.from_pretrained`. Scalings are translated
/// exactly: kAuthors' alpha is that of alpha / √rank, kPeft keeps alpha and use_rslora, kSafetensors the
/// scalings themselves. What `context` says of the scale to merge at is a part of alpha in kAuthors and
/// kPeft, whose other readers know no such scale.
void save_adapter(const std::filesystem::path& path, const Adapter& adapter, const AdapterContext& context,
                  AdapterFormat format = AdapterFormat::kAuthors);

/// Reads an adapter for `clip` in any format: rank, scaling, placement and dropout are the file's (the
/// releases' files say no dropout: the default). Of a kRAdapterRelease with averages, those are read.
/// `fingerprint` is the model's; "" skips the comparison; a kRAdapterRelease is compared by the weights of
/// the model that it holds. Throws CheckpointError if the file or folder is missing, unreadable or of no
/// known format, if tensors are missing, unexpected or wrongly shaped for this model (all at once, ten and a
/// count) or hold NaN or infinities, if it was trained on another backbone of the same shapes, and for what CLIP-LoRA cannot be:
/// another method of PEFT (DoRA, biases, modules_to_save, …), naming what was found.
LoadedAdapter load_adapter(const std::filesystem::path& path, const model::Clip& clip,
                           const std::string& fingerprint);

/// Throws CheckpointError that names every setting (see Adapter::settings) in which `adapter` differs from
/// one that `options` make, alpha by the scaling that it gives. `source`: the adapter's file. Only what
/// `flags` names is compared, and the method always. What is drawn in training, such as dropout, may differ.
void require_same_options(const Adapter& adapter, const AdapterOptions& options,
                          const std::filesystem::path& source,
                          const std::optional<std::set<std::string>>& flags = std::nullopt);

}  // namespace clip_lora::lora
