#include "description.hpp"

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "configuration.hpp"
#include "json_fields.hpp"
#include "read_shapes.hpp"

namespace clip_lora::model {
namespace {

using nlohmann::json;

void set_activation(ClipArchitecture& architecture, Activation activation) {
  architecture.vision.activation = activation;
  architecture.text.activation = activation;
}

/// Completes a Description from whatever says more than the tensors do.
class Describer {
 public:
  Describer(const io::CheckpointFiles& files, const ClipArchitecture& shapes, Naming naming)
      : files_(files), result_{shapes, open_ai_preprocessing(shapes.image_size_px), naming, {}} {}

  Description describe(std::optional<Activation> demanded) {
    const bool configured = from_documents() || from_metadata();
    const std::optional<Activation> in_file = activation_in_file();
    if (demanded) {
      set_activation(result_.architecture, *demanded);
    } else if (configured) {
      if (in_file) require_activation(*in_file);
    } else if (in_file) {
      set_activation(result_.architecture, *in_file);
    } else {
      warn_of_assumed_activation();
    }
    require_heads(result_.architecture, files_.path.string());
    return result_;
  }

 private:
  std::string document(const std::string& name) const {
    return "checkpoint '" + files_.path.string() + "': " + name;
  }

  const json* find_document(const std::string& name) const {
    const auto found = files_.documents.find(name);
    return found == files_.documents.end() ? nullptr : &found->second;
  }

  bool from_documents() {
    return result_.naming == Naming::kHuggingFace ? from_hugging_face_documents() : from_open_clip_document();
  }

  /// A config.json without a model_type is some other program's that happens to lie there.
  bool from_hugging_face_documents() {
    constexpr const char* kConfig = "config.json";
    const json* config = find_document(kConfig);
    if (config == nullptr) return false;
    const JsonFields fields(*config, document(kConfig));
    if (!fields.has("model_type")) return false;
    if (fields.text("model_type") != "clip") fields.fail("model_type", "\"clip\"");
    result_.architecture = read_hugging_face_config(*config, result_.architecture, document(kConfig));
    constexpr const char* kPreprocessor = "preprocessor_config.json";
    if (const json* preprocessor = find_document(kPreprocessor)) {
      result_.preprocessing = read_hugging_face_preprocessing(
          *preprocessor, result_.architecture.image_size_px, document(kPreprocessor));
    }
    return true;
  }

  bool from_open_clip_document() {
    constexpr const char* kConfig = "open_clip_config.json";
    const json* config = find_document(kConfig);
    if (config == nullptr) return false;
    from_open_clip(*config, document(kConfig));
    result_.naming = Naming::kOpenClip;
    return true;
  }

  void from_open_clip(const json& config, const std::string& name) {
    const JsonFields fields(config, name);
    if (!fields.has("model_cfg")) fields.fail("model_cfg", "the model's configuration");
    result_.architecture = read_open_clip_config(config.at("model_cfg"), result_.architecture, name);
    if (fields.has("preprocess_cfg")) {
      result_.preprocessing =
          read_open_clip_preprocessing(config.at("preprocess_cfg"), result_.architecture.image_size_px, name);
    }
  }

  /// The configuration that checkpoint_metadata() writes.
  bool from_metadata() {
    const auto found = files_.metadata.find("clip_lora.configuration");
    if (found == files_.metadata.end()) return false;
    const std::string name = document("metadata clip_lora.configuration");
    from_open_clip(io::parse_json_object(found->second, name + ": "), name);
    return true;
  }

  /// What the weights' own file says: our metadata, or a TorchScript archive's code.
  std::optional<Activation> activation_in_file() const {
    if (const auto found = files_.metadata.find("clip_lora.activation"); found != files_.metadata.end()) {
      try {
        return parse_activation(found->second);
      } catch (const ConfigError& error) {
        throw CheckpointError(document("metadata clip_lora.") + error.what());
      }
    }
    // CLIP's towers have no other use for a sigmoid than QuickGELU.
    const bool quick = files_.torchscript_code.find("torch.sigmoid(") != std::string::npos;
    const bool exact = files_.torchscript_code.find("torch.gelu(") != std::string::npos;
    if (quick == exact) return std::nullopt;
    return quick ? Activation::kQuickGelu : Activation::kGelu;
  }

  void require_activation(Activation in_file) const {
    for (const TowerArchitecture* tower : {&result_.architecture.vision, &result_.architecture.text}) {
      if (tower->activation == in_file) continue;
      throw CheckpointError(document("the configuration") +
                            " beside the weights says that a tower's activation is " +
                            to_string(tower->activation) + ", the weights' own file says " +
                            to_string(in_file) + " (hint: --activation quick_gelu|gelu decides)");
    }
  }

  void warn_of_assumed_activation() {
    result_.warnings.push_back(
        "checkpoint '" + files_.path.string() +
        "' does not say which activation its towers have: taken to be QuickGELU, as OpenAI's and "
        "MetaCLIP's are; most of LAION's and DataComp's have exact GELU (hint: say "
        "--activation quick_gelu|gelu)");
  }

  const io::CheckpointFiles& files_;
  Description result_;
};

}  // namespace

Description describe_checkpoint(const io::CheckpointFiles& files, const ClipArchitecture& shapes,
                                Naming naming, std::optional<Activation> activation) {
  return Describer(files, shapes, naming).describe(activation);
}

}  // namespace clip_lora::model
