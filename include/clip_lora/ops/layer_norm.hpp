#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "clip_lora/ops/dropout.hpp"

namespace clip_lora::ops {

/// weight, bias: [D] of the compute type.
struct LayerNormWeights {
  at::Tensor weight;
  at::Tensor bias;
  double epsilon = 1e-5;
};

/// The down-projections A of up to three low-rank updates of the same rows. What they yield are extra columns of the
/// rows: [x | A dropout(x) | 0]. Each update has a dropout mask of its own (0, 1, 2).
struct DownProjection {
  at::Tensor a;                            ///< [n, D] float32, the updates' A's one below the other
  std::array<std::int64_t, 3> ranks = {};  ///< rows of `a` of each update, Σ = n; 0: no such update
  std::int64_t columns = 0;                ///< n rounded up to a multiple of 8, and at least 8; 0: no update
  Dropout dropout;
};

/// rows: [T, D + columns] of x's type, contiguous. mean, inverse_deviation: [T] float32, over D.
struct Normalised {
  at::Tensor rows;
  at::Tensor mean;
  at::Tensor inverse_deviation;
};

/// Layer normalisation over the last axis of x [T, D], with the down-projections' columns appended: of the rounded
/// rows where down.columns > 0, computed in float32.
Normalised layer_norm(const at::Tensor& x, const LayerNormWeights& weights, const DownProjection& down);

/// How many parts K the gradients below are best summed in: 1 on a CPU, else one for each multiprocessor.
std::int64_t gradient_parts(const at::Device& device);

/// Backward of layer_norm. d_rows: [T, D + columns], gradient of rows; `residual`: [T, D], added to the result, or
/// undefined; `d_a`: [K, n, D] float32, any K ≥ 1 and any stride of the first axis: its sum over K becomes A's
/// gradient (all K are written), undefined if there are no columns. Returns dx [T, D], or an undefined tensor unless
/// `needs_dx`.
at::Tensor layer_norm_backward(const at::Tensor& d_rows, const at::Tensor& x, const Normalised& normalised,
                               const LayerNormWeights& weights, const DownProjection& down,
                               const at::Tensor& residual, const at::Tensor& d_a, bool needs_dx);

/// [x | A dropout(x) | 0] of x [T, D] itself: the columns of the output projection's update.
at::Tensor append_down_projection(const at::Tensor& x, const DownProjection& down);

/// Backward of append_down_projection: dx [T, D]; d_a as above.
at::Tensor append_down_projection_backward(const at::Tensor& d_rows, const at::Tensor& x,
                                           const DownProjection& down, const at::Tensor& d_a);

/// Gradients of the up-projections B: dB = scaling · dYᵀ a for each update. dy: [T, m · D], m = 1, 2 or 3, whose m
/// parts of D columns belong to the first m updates; down_columns: [T, ≥ n], a strided view, whose first n = Σ ranks
/// columns hold a. d_b: [K, Σ D · rank] float32 laid out as [D, R_0], [D, R_1], [D, R_2] one after the other, any
/// stride of the first axis; its sum over K becomes the gradient (all K are written).
void up_projection_gradient(const at::Tensor& dy, const at::Tensor& down_columns,
                            const std::array<std::int64_t, 3>& ranks, const std::array<double, 3>& scalings,
                            const at::Tensor& d_b);

}  // namespace clip_lora::ops
