#include <ATen/ATen.h>

#include <cmath>

#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::model {
namespace {

constexpr double kTokenDeviation = 0.02;
constexpr double kPositionDeviation = 0.01;
constexpr double kInitialTemperature = 0.07;

void reset(const LayerNorm& norm) {
  norm->weight.fill_(1.0);
  norm->bias.zero_();
}

void fill(const Linear& linear, double deviation) {
  linear->weight.normal_(0.0, deviation);
  linear->bias.zero_();
}

/// Deviations of OpenAI's CLIP.initialize_parameters; outputs of a block shrink with the tower's depth.
void fill(Transformer& transformer, const TowerArchitecture& architecture) {
  const double attention_deviation = std::pow(architecture.width, -0.5);
  const double output_deviation =
      attention_deviation * std::pow(2.0 * static_cast<double>(architecture.layers), -0.5);
  const double hidden_deviation = std::pow(2.0 * static_cast<double>(architecture.width), -0.5);
  for (std::int64_t i = 0; i < architecture.layers; ++i) {
    ResidualAttentionBlockImpl& block = transformer->block(i);
    block.attn->in_proj_weight.normal_(0.0, attention_deviation);
    block.attn->in_proj_bias.zero_();
    fill(block.attn->out_proj, output_deviation);
    fill(block.mlp->c_fc, hidden_deviation);
    fill(block.mlp->c_proj, output_deviation);
    reset(block.ln_1);
    reset(block.ln_2);
  }
}

}  // namespace

void initialise(Clip& clip) {
  const at::NoGradGuard no_grad;
  const ClipArchitecture& architecture = clip->architecture();
  VisionTransformerImpl& visual = *clip->visual;
  const double vision_deviation = std::pow(architecture.vision.width, -0.5);
  const double patch_inputs =
      3.0 * static_cast<double>(architecture.patch_size_px * architecture.patch_size_px);
  visual.conv1->weight.normal_(0.0, std::pow(patch_inputs, -0.5));
  visual.class_embedding.normal_(0.0, vision_deviation);
  visual.positional_embedding.normal_(0.0, vision_deviation);
  visual.proj.normal_(0.0, vision_deviation);
  reset(visual.ln_pre);
  reset(visual.ln_post);
  fill(visual.transformer, architecture.vision);

  clip->token_embedding->weight.normal_(0.0, kTokenDeviation);
  clip->positional_embedding.normal_(0.0, kPositionDeviation);
  clip->text_projection.normal_(0.0, std::pow(architecture.text.width, -0.5));
  clip->logit_scale.fill_(std::log(1.0 / kInitialTemperature));
  reset(clip->ln_final);
  fill(clip->transformer, architecture.text);
}

}  // namespace clip_lora::model
