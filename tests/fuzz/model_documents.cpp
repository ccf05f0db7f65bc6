
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/json_text.hpp"
#include "model/description.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

/// What the weights' shapes say in all inputs.
model::ClipArchitecture shapes() {
  model::ClipArchitecture shapes;
  shapes.vision = {.width = 192, .layers = 2, .mlp_width = 768, .heads = 3};
  shapes.text = {.width = 128, .layers = 4, .mlp_width = 512, .heads = 2};
  shapes.patch_size_px = 8;
  shapes.image_size_px = 24;
  shapes.context_length = 77;
  shapes.vocabulary = 49408;
  shapes.embedding = 64;
  return shapes;
}

void check(const model::Description& description) {
  const image::Preprocessing& preprocessing = description.preprocessing;
  const image::Image view = image::evaluation_view({2, 3, std::vector<std::uint8_t>(18, 7)}, preprocessing);
  require(view.height == 24 && view.width == 24, "a view is as large as the model's input");
  std::vector<float> values(view.rgb.size());
  image::normalise_chw(view.rgb, preprocessing, values.data());
  for (const auto* tower : {&description.architecture.vision, &description.architecture.text}) {
    require(tower->heads > 0 && tower->width % tower->heads == 0, "heads divide the width");
    require(tower->layer_norm_epsilon >= 0.0, "an epsilon is not negative");
  }
}

/// Pieces: config.json, preprocessor_config.json, open_clip_config.json, our metadata's configuration and
/// activation, a TorchScript archive's code. An empty piece is not there.
void run(std::string_view input) {
  constexpr const char* kDocuments[] = {"config.json", "preprocessor_config.json", "open_clip_config.json"};
  const auto pieces = pieces_of(input, 6);
  read_whatever_it_is([&] {
    io::CheckpointFiles files;
    files.path = "model";
    for (std::size_t i = 0; i < std::size(kDocuments); ++i) {
      if (!pieces[i].empty()) files.documents[kDocuments[i]] = io::parse_json_object(pieces[i], "x: ");
    }
    if (!pieces[3].empty()) files.metadata["clip_lora.configuration"] = pieces[3];
    if (!pieces[4].empty()) files.metadata["clip_lora.activation"] = pieces[4];
    files.torchscript_code = pieces[5];
    for (const auto naming : {model::Naming::kHuggingFace, model::Naming::kOpenAi}) {
      read_whatever_it_is([&] { check(model::describe_checkpoint(files, shapes(), naming, std::nullopt)); });
    }
  });
}

std::vector<std::string> seeds() {
  const std::string config =
      R"({"model_type": "clip", "projection_dim": 64, "text_config": {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 4, "intermediate_size": 512, "hidden_act": "gelu", "layer_norm_eps": 1e-05, "eos_token_id": 2, "vocab_size": 49408, "max_position_embeddings": 77}, "vision_config": {"hidden_size": 192, "num_attention_heads": 3, "num_hidden_layers": 2, "image_size": 24, "patch_size": [8, 8], "num_channels": 3}})";
  const std::string squash =
      R"({"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"height": 24, "width": 24}, "resample": 2, "do_center_crop": false, "do_rescale": true, "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": 0.5})";
  const std::string crop =
      R"({"size": {"shortest_edge": 65536}, "crop_size": {"height": 24, "width": 24}, "resample": "lanczos", "do_normalize": false, "do_rescale": false})";
  const std::string open_clip =
      R"({"model_cfg": {"embed_dim": 64, "quick_gelu": true, "vision_cfg": {"image_size": 24, "layers": 2, "width": 192, "patch_size": 8, "head_width": 64, "mlp_ratio": 4.0, "norm_kwargs": {"eps": 1e-6}}, "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 4}}, "preprocess_cfg": {"size": 24, "mode": "RGB", "mean": [0, 0.25, 1], "std": [1, 2, 3], "interpolation": "bicubic", "resize_mode": "longest", "fill_color": 255}})";
  return {
      joined({config, squash}),
      joined({config, crop}),
      joined({"", "", open_clip}),
      joined({"", "", "", open_clip, "quick_gelu"}),
      joined({"", "", "", "", "gelu", "torch.gelu(x)"}),
      joined({"", "", "", "", "", "torch.sigmoid(torch.mul(x, 1.702))"}),
      joined(
          {R"({"model_type": "clip", "text_config_dict": {"num_attention_heads": 0}, "vision_config_dict": []})"}),
      joined({"", "", R"({"model_cfg": {"vision_cfg": {"mlp_ratio": 1e300}}})"})};
}

}  // namespace

const Target model_documents = {"model_documents", run, seeds};

}  // namespace clip_lora::fuzz
