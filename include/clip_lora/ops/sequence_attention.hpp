#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "clip_lora/ops/packing.hpp"

namespace clip_lora::ops {

/// rows: what attention yields, of the queries' type. log_sum_exp: float32, of the scaled scores (natural logarithm);
/// its shape is the back-end's own.
struct Attended {
  at::Tensor rows;
  at::Tensor log_sum_exp;
};

/// Multi-head self-attention within each sequence. qkv: [T, 3D], heads side by side in each third, scores scaled by
/// 1/√(D / heads). Returns rows [T, D]. The prefix's rows attend among themselves.
Attended attend(const at::Tensor& qkv, const Packing& packing, std::int64_t heads);

/// Backward of attend: the gradient of qkv, [T, 3D] contiguous. The prefix's keys and values collect the gradients of
/// all sequences, in a fixed order.
at::Tensor attend_backward(const at::Tensor& d_rows, const at::Tensor& qkv, const Attended& attended,
                           const Packing& packing, std::int64_t heads);

/// The same for the last block, where only the rows packing.ends matter: q [N, D] of those rows, kv [T, 2D] of all.
/// Each attends to all rows of its sequence (the prefix included). Returns rows [N, D].
Attended attend_at_ends(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                        std::int64_t heads);

struct EndGradients {
  at::Tensor q;   ///< [N, D]
  at::Tensor kv;  ///< [T, 2D]
};

EndGradients attend_at_ends_backward(const at::Tensor& d_rows, const at::Tensor& q, const at::Tensor& kv,
                                     const Attended& attended, const Packing& packing, std::int64_t heads);

}  // namespace clip_lora::ops
