#include "clip_lora/cli/load_model.hpp"

#include <optional>

#include "clip_lora/cli/find_checkpoint.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/model/naming.hpp"
#include "clip_lora/text/hugging_face_tokenizer.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

std::optional<model::Activation> chosen_activation(const ModelOptions& options) {
  if (options.activation.empty()) return std::nullopt;
  return model::parse_activation(options.activation);
}

std::string asked_backbone(const ModelOptions& options) {
  return options.backbone.empty() ? kDefaultBackbone : options.backbone;
}

/// Whether the two differ at most in what the shapes of tensors do not say.
bool same_shapes(model::ClipArchitecture architecture, const model::ClipArchitecture& other) {
  const auto take_over = [](model::TowerArchitecture& tower, const model::TowerArchitecture& from) {
    tower.heads = from.heads;
    tower.activation = from.activation;
    tower.layer_norm_epsilon = from.layer_norm_epsilon;
  };
  take_over(architecture.vision, other.vision);
  take_over(architecture.text, other.text);
  return architecture == other;
}

[[noreturn]] void throw_other_backbone(const std::string& backbone, const fs::path& path,
                                       const std::string& name, const model::ClipArchitecture& architecture) {
  throw ConfigError("--backbone '" + backbone + "': the checkpoint '" + path.string() + "' holds " + name +
                    " (" + model::describe(architecture) + ")");
}

/// The name that results are filed under. Throws ConfigError if --backbone and the checkpoint disagree.
std::string agreed_name(const ModelOptions& options, const fs::path& path,
                        const model::ClipArchitecture& architecture) {
  std::string name = backbone_name(path, architecture);
  std::string asked = asked_backbone(options);
  const bool found_by_name = path != options.checkpoint;
  if (found_by_name) {
    const auto published = model::published_architecture(asked);
    if (published && !same_shapes(architecture, *published))
      throw_other_backbone(asked, path, name, architecture);
    return asked;
  }
  if (!options.backbone.empty() && asked != name && asked != path.stem())
    throw_other_backbone(asked, path, name, architecture);
  return name;
}

}  // namespace

void ModelOptions::validate() const {
  if (!activation.empty()) require_one_of("--activation", activation, {"quick_gelu", "gelu"});
}

void bind(OptionTable& table, ModelOptions& options) {
  table.add(
      "backbone", options.backbone,
      "name of the CLIP; --checkpoint must hold it, or it is looked for by name; unset, what --checkpoint "
      "holds, else what predict's adapter is for, else ViT-B/16");
  table.add("checkpoint", options.checkpoint,
            "file or folder: OpenAI's .pt, safetensors, Hugging Face's or OpenCLIP's folder");
  table.add("activation", options.activation, "quick_gelu or gelu; unset, the checkpoint decides");
}

std::string backbone_name(const fs::path& checkpoint, const model::ClipArchitecture& architecture) {
  if (const auto published = model::published_name(architecture)) return *published;
  const fs::path path = fs::absolute(checkpoint).lexically_normal();
  const fs::path name = path.has_filename() ? path : path.parent_path();  // a folder may end in a slash
  return fs::is_directory(checkpoint) ? name.filename().string() : name.stem().string();
}

Model load_model(const ModelOptions& options) {
  Model model;
  model.path = find_checkpoint(options.checkpoint, asked_backbone(options));
  model.loaded = model::load_clip(io::read_checkpoint_files(model.path), chosen_activation(options));
  for (const auto& warning : model.loaded.warnings) log_warning(warning);
  const model::ClipArchitecture& architecture = model.loaded.clip->architecture();
  model.backbone = agreed_name(options, model.path, architecture);
  model.fingerprint = model::fingerprint(model.loaded.clip);
  log_detail("checkpoint '" + model.path.string() + "': " + model::describe(architecture));
  return model;
}

bool has_clip_vocabulary(const Model& model) {
  return model.loaded.clip->architecture().vocabulary == text::kVocabularySize;
}

void require_clip_vocabulary(const Model& model) {
  if (has_clip_vocabulary(model)) {
    if (fs::is_directory(model.path)) text::require_clip_tokenizer(model.path);
    return;
  }
  throw CheckpointError("checkpoint '" + model.path.string() + "': its vocabulary has " +
                        std::to_string(model.loaded.clip->architecture().vocabulary) + " tokens, expected " +
                        std::to_string(text::kVocabularySize) +
                        ", those of CLIP's tokenizer (hint: a model with another tokenizer cannot be used)");
}

lora::AdapterContext adapter_context(const Model& model, const std::string& dataset,
                                     const std::vector<std::string>& class_names,
                                     const std::vector<std::string>& templates) {
  return {model.backbone, model.fingerprint, dataset,
          class_names,    templates,         model::to_json(model.loaded.preprocessing)};
}

void use_preprocessing(Model& model, const lora::LoadedAdapter& adapter, const fs::path& source) {
  if (!adapter.context || adapter.context->preprocessing.is_null()) return;
  const std::string named = "adapter '" + source.string() + "': preprocessing";
  const image::Preprocessing trained = model::preprocessing_from_json(adapter.context->preprocessing, named);
  const std::int64_t size_px = model.loaded.clip->architecture().image_size_px;
  if (trained.size_px != size_px) {
    throw CheckpointError(named + ".size is " + std::to_string(trained.size_px) + ", expected the " +
                          std::to_string(size_px) + " pixels that the model takes");
  }
  if (trained != model.loaded.preprocessing) {
    log_detail("adapter '" + source.string() +
               "' was trained with another preprocessing of images than the checkpoint's, which is used: " +
               model::to_json(trained).dump());
  }
  model.loaded.preprocessing = trained;
}

}  // namespace clip_lora::cli
