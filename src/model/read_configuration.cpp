#include <algorithm>
#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "configuration.hpp"
#include "json_fields.hpp"

namespace clip_lora::model {
namespace {

using nlohmann::json;

// In old configurations; transformers then takes the largest id's row, as we do.
constexpr std::int64_t kOldEndOfText = 2;

std::int64_t checked_heads(const JsonFields& tower, const std::string& key, std::int64_t heads,
                           std::int64_t width) {
  if (heads < 1 || width % heads != 0) tower.fail(key, "a divisor of the width " + std::to_string(width));
  return heads;
}

double checked_epsilon(const JsonFields& fields, const std::string& key, double fallback) {
  const double epsilon = fields.number(key).value_or(fallback);
  if (epsilon < 0.0) fields.fail(key, "a number that is not negative");
  return epsilon;
}

// ---- Hugging Face: an absent field has the default of transformers' CLIPTextConfig or CLIPVisionConfig ----

/// `<key>_dict`, which old configurations have, counts instead of `<key>` where it is there.
JsonFields hugging_face_section(const JsonFields& config, const std::string& key) {
  return config.object(config.has(key + "_dict") ? key + "_dict" : key);
}

TowerArchitecture hugging_face_tower(const JsonFields& tower, TowerArchitecture shapes,
                                     std::int64_t default_heads) {
  const auto require = [&](const char* key, std::int64_t in_weights) {
    tower.require_as_in_weights(key, tower.integer(key), in_weights);
  };
  require("hidden_size", shapes.width);
  require("num_hidden_layers", shapes.layers);
  require("intermediate_size", shapes.mlp_width);
  const std::int64_t heads = tower.integer("num_attention_heads").value_or(default_heads);
  shapes.heads = checked_heads(tower, "num_attention_heads", heads, shapes.width);
  shapes.layer_norm_epsilon = checked_epsilon(tower, "layer_norm_eps", 1e-5);
  const std::string activation = tower.text("hidden_act").value_or("quick_gelu");
  if (activation != "quick_gelu" && activation != "gelu")
    tower.fail("hidden_act", "\"quick_gelu\" or \"gelu\"");
  shapes.activation = parse_activation(activation);
  return shapes;
}

/// transformers takes the features at the end token's id, we at the largest id: they must be the same.
void require_end_of_text(const JsonFields& text, std::int64_t vocabulary) {
  const std::int64_t end = text.integer("eos_token_id").value_or(kEndOfText);
  const std::int64_t largest = std::min(vocabulary - 1, kEndOfText);
  if (end != kOldEndOfText && end != largest) {
    text.fail("eos_token_id",
              std::to_string(largest) + ", the largest id, at which CLIP takes a text's features");
  }
}

// ---- OpenCLIP: an absent field has the default of its CLIPVisionCfg or CLIPTextCfg ----

void require_text(const JsonFields& fields, const char* key, const char* only) {
  if (fields.has(key) && fields.text(key) != only) fields.fail(key, '"' + std::string(only) + '"');
}

/// What both towers have. The heads are left to the caller.
TowerArchitecture open_clip_tower(const JsonFields& tower, TowerArchitecture shapes, Activation activation) {
  tower.require_as_in_weights("width", tower.integer("width"), shapes.width);
  tower.require_as_in_weights("layers", tower.integer("layers"), shapes.layers);
  if (const auto ratio = tower.number("mlp_ratio")) {
    if (std::trunc(static_cast<double>(shapes.width) * *ratio) != static_cast<double>(shapes.mlp_width)) {
      tower.fail("mlp_ratio",
                 "one that makes the " + std::to_string(shapes.mlp_width) + " rows of the weights' c_fc");
    }
  }
  require_text(tower, "block_type", "default");
  tower.object("act_kwargs").require_only({});
  const JsonFields norm = tower.object("norm_kwargs");
  norm.require_only({"eps"});
  shapes.layer_norm_epsilon = checked_epsilon(norm, "eps", 1e-5);
  shapes.activation = activation;
  return shapes;
}

TowerArchitecture open_clip_vision(const JsonFields& vision, const ClipArchitecture& shapes,
                                   Activation activation) {
  vision.require_only({"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size",
                       "norm_kwargs", "act_kwargs", "pool_type", "pos_embed_type", "block_type",
                       // without a say in evaluation, or only in what is refused anyway
                       "patch_dropout", "output_tokens", "attn_pooler_queries", "attn_pooler_heads",
                       "timm_model_pretrained", "timm_pool", "timm_proj", "timm_proj_bias", "timm_drop",
                       "timm_drop_path"});
  require_text(vision, "pool_type", "tok");
  vision.require_as_in_weights("image_size", vision.square_side("image_size"), shapes.image_size_px);
  vision.require_as_in_weights("patch_size", vision.square_side("patch_size"), shapes.patch_size_px);
  TowerArchitecture tower = open_clip_tower(vision, shapes.vision, activation);
  const std::int64_t head_width = vision.integer("head_width").value_or(64);
  if (head_width < 1 || tower.width % head_width != 0) {
    vision.fail("head_width", "a divisor of the width " + std::to_string(tower.width));
  }
  tower.heads = tower.width / head_width;
  return tower;
}

TowerArchitecture open_clip_text(const JsonFields& text, const ClipArchitecture& shapes,
                                 Activation activation) {
  text.require_only({"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio", "norm_kwargs",
                     "act_kwargs", "pool_type", "proj_type", "block_type", "pad_id", "eos_id",
                     "output_tokens", "hf_model_pretrained", "hf_proj_type", "hf_pooler_type"});
  require_text(text, "pool_type", "argmax");
  require_text(text, "proj_type", "linear");
  text.require_as_in_weights("context_length", text.integer("context_length"), shapes.context_length);
  text.require_as_in_weights("vocab_size", text.integer("vocab_size"), shapes.vocabulary);
  TowerArchitecture tower = open_clip_tower(text, shapes.text, activation);
  tower.heads = checked_heads(text, "heads", text.integer("heads").value_or(8), tower.width);
  return tower;
}

}  // namespace

ClipArchitecture read_hugging_face_config(const json& config, const ClipArchitecture& shapes,
                                          const std::string& document) {
  const JsonFields fields(config, document);
  fields.require_as_in_weights("projection_dim", fields.integer("projection_dim"), shapes.embedding);

  const JsonFields text = hugging_face_section(fields, "text_config");
  text.require_as_in_weights("vocab_size", text.integer("vocab_size"), shapes.vocabulary);
  text.require_as_in_weights("max_position_embeddings", text.integer("max_position_embeddings"),
                             shapes.context_length);
  require_end_of_text(text, shapes.vocabulary);

  const JsonFields vision = hugging_face_section(fields, "vision_config");
  vision.require_as_in_weights("image_size", vision.square_side("image_size"), shapes.image_size_px);
  vision.require_as_in_weights("patch_size", vision.square_side("patch_size"), shapes.patch_size_px);
  vision.require_as_in_weights("num_channels", vision.integer("num_channels"), 3);

  ClipArchitecture architecture = shapes;
  architecture.text = hugging_face_tower(text, shapes.text, /*default_heads=*/8);
  architecture.vision = hugging_face_tower(vision, shapes.vision, /*default_heads=*/12);
  return architecture;
}

ClipArchitecture read_open_clip_config(const json& model_cfg, const ClipArchitecture& shapes,
                                       const std::string& document) {
  const JsonFields fields(model_cfg, document, "model_cfg.");
  fields.require_only({"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale",
                       "nonscalar_logit_scale", "output_dict", "cast_dtype"});
  fields.require_as_in_weights("embed_dim", fields.integer("embed_dim"), shapes.embedding);
  const bool quick = fields.boolean("quick_gelu").value_or(false);
  const Activation activation = quick ? Activation::kQuickGelu : Activation::kGelu;
  ClipArchitecture architecture = shapes;
  architecture.vision = open_clip_vision(fields.object("vision_cfg"), shapes, activation);
  architecture.text = open_clip_text(fields.object("text_cfg"), shapes, activation);
  return architecture;
}

}  // namespace clip_lora::model
