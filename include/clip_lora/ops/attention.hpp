#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace clip_lora::ops {

/// A low-rank update of a frozen projection: y += scaling · B A dropout(x). Source: Zanella & Ben Ayed 2024, eq. 3.
struct LowRank {
  at::Tensor a;          ///< [R, D] float32
  at::Tensor b;          ///< [D, R] float32
  double scaling = 1.0;  ///< γ
  double dropout = 0.0;  ///< probability of a zero on A's input, [0, 1)
};

/// The four projections of one attention layer, each with or without an update.
struct AttentionLora {
  std::optional<LowRank> q;
  std::optional<LowRank> k;
  std::optional<LowRank> v;
  std::optional<LowRank> o;
};

/// Keep masks of one forward pass, [B, L, D], 1 keep and 0 drop, one per projection; an undefined mask keeps everything.
struct DropoutMasks {
  at::Tensor q;
  at::Tensor k;
  at::Tensor v;
  at::Tensor o;
};

/// The frozen weights of one attention layer; names as in the checkpoint. All of the compute type.
struct AttentionWeights {
  at::Tensor in_proj_weight;   ///< [3D, D]: q, k, v
  at::Tensor in_proj_bias;     ///< [3D]
  at::Tensor out_proj_weight;  ///< [D, D]
  at::Tensor out_proj_bias;    ///< [D]
};

/// Draws a mask of its own for each updated projection whose dropout is above 0, shaped like x [B, L, D].
DropoutMasks draw_dropout_masks(const AttentionLora& lora, const at::Tensor& x);

/// scaling · B A (x · keep / (1 − dropout)) without ever forming B A. x: [..., D] of any type; returns [..., D] of x's
/// type. An undefined `keep` keeps everything.
at::Tensor low_rank_update(const at::Tensor& x, const LowRank& lora, const at::Tensor& keep);

/// The merged weight W + scaling · B A in float32, cast to W's type. W: [D, D].
at::Tensor merged_weight(const at::Tensor& weight, const LowRank& lora);

/// Multi-head self-attention with low-rank updates on its projections. x: [B, L, D] of the weights' type; `heads`
/// divides D; `causal` lets a token see only itself and earlier ones. Returns [B, L, D]. Differentiable in x, A and B.
at::Tensor attention(const at::Tensor& x, const AttentionWeights& weights, const AttentionLora& lora,
                     const DropoutMasks& masks, std::int64_t heads, bool causal);

}  // namespace clip_lora::ops
