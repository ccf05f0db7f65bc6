#include "clip_lora/ops/attention.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <array>

namespace clip_lora::ops {
namespace {

at::Tensor draw_mask(const std::optional<LowRank>& lora, const at::Tensor& x) {
  if (!lora || lora->dropout == 0.0) return {};
  return at::empty_like(x).bernoulli_(1.0 - lora->dropout);
}

/// [B, L, D] → [B, H, L, D / H]
at::Tensor split_heads(const at::Tensor& x, std::int64_t heads) {
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(1, 2);
}

at::Tensor updated(const at::Tensor& y, const at::Tensor& x, const std::optional<LowRank>& lora,
                   const at::Tensor& keep) {
  return lora ? y + low_rank_update(x, *lora, keep) : y;
}

}  // namespace

DropoutMasks draw_dropout_masks(const AttentionLora& lora, const at::Tensor& x) {
  const at::NoGradGuard no_grad;
  return {draw_mask(lora.q, x), draw_mask(lora.k, x), draw_mask(lora.v, x), draw_mask(lora.o, x)};
}

at::Tensor low_rank_update(const at::Tensor& x, const LowRank& lora, const at::Tensor& keep) {
  const at::Tensor kept = keep.defined() ? x * keep * (1.0 / (1.0 - lora.dropout)) : x;
  const at::Tensor down = at::linear(kept, lora.a.to(x.scalar_type()));  // [..., R]
  return lora.scaling * at::linear(down, lora.b.to(x.scalar_type()));    // [..., D]
}

at::Tensor merged_weight(const at::Tensor& weight, const LowRank& lora) {
  const at::Tensor update = lora.scaling * at::matmul(lora.b, lora.a);  // [D, D] float32
  return (weight.to(at::kFloat) + update).to(weight.scalar_type());
}

at::Tensor attention(const at::Tensor& x, const AttentionWeights& weights, const AttentionLora& lora,
                     const DropoutMasks& masks, std::int64_t heads, bool causal) {
  // Three products, as the release computes them: one of 3D columns sums in an order of its own, which AdamW makes
  // visible where a gradient is near its eps.
  const auto w = weights.in_proj_weight.chunk(3);  // 3 × [D, D]
  const auto b = weights.in_proj_bias.chunk(3);    // 3 × [D]
  const at::Tensor q = split_heads(updated(at::linear(x, w[0], b[0]), x, lora.q, masks.q), heads);
  const at::Tensor k = split_heads(updated(at::linear(x, w[1], b[1]), x, lora.k, masks.k), heads);
  const at::Tensor v = split_heads(updated(at::linear(x, w[2], b[2]), x, lora.v, masks.v), heads);
  const at::Tensor mixed =
      at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/{}, /*dropout_p=*/0.0, causal);
  const at::Tensor joined = mixed.transpose(1, 2).flatten(2);  // [B, L, D]
  const at::Tensor out = at::linear(joined, weights.out_proj_weight, weights.out_proj_bias);
  return updated(out, joined, lora.o, masks.o);
}

}  // namespace clip_lora::ops
