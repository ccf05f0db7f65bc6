#include "support/dropping_model.hpp"

#include <ATen/ATen.h>

#include "clip_lora/ops/residual_adapter.hpp"

namespace clip_lora::testing {
namespace {

/// x: [B, L, D].
at::Tensor through_blocks(model::Clip& clip, lora::Tower tower, at::Tensor x, const Dropping& dropping) {
  model::Transformer& transformer = lora::tower_of(clip, tower);
  for (std::int64_t i = 0; i < transformer->layers(); ++i) {
    auto& block = transformer->block(i);
    const auto changed = [&](const at::Tensor& z, const model::ResidualSlot& slot, bool is_mlp) {
      if (slot.adapter.is_empty()) return z;
      return ops::residual_adapter(z, slot.adapter, dropping({tower, i, is_mlp}, z.size(0), z.size(1)));
    };
    x = x + changed(block.attn(block.ln_1(x)), block.attention_slot, false);
    x = x + changed(block.mlp(block.ln_2(x)), block.mlp_slot, true);
  }
  return x;
}

}  // namespace

at::Tensor dropping_image_features(model::Clip& clip, const at::Tensor& images, const Dropping& dropping) {
  const auto& visual = clip->visual;
  const at::Tensor classes = visual->class_embedding.expand({images.size(0), 1, -1});
  const at::Tensor rows =
      at::cat({classes, visual->conv1->forward(images)}, 1) + visual->positional_embedding;
  const at::Tensor encoded =
      through_blocks(clip, lora::Tower::kVision, visual->ln_pre->forward(rows), dropping);
  return at::matmul(visual->ln_post->forward(encoded.select(1, 0)), visual->proj);
}

at::Tensor dropping_text_features(model::Clip& clip, const model::Prompts& prompts,
                                  const Dropping& dropping) {
  const at::Tensor rows = clip->token_embedding->forward(prompts.ids) +
                          clip->positional_embedding.slice(0, 0, prompts.ids.size(1));
  const at::Tensor encoded = through_blocks(clip, lora::Tower::kText, rows, dropping);
  const at::Tensor ends = encoded.index({at::arange(encoded.size(0)).to(prompts.eot.device()), prompts.eot});
  return at::matmul(clip->ln_final->forward(ends), clip->text_projection);
}

}  // namespace clip_lora::testing
