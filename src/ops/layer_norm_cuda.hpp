#pragma once

#include "clip_lora/ops/layer_norm.hpp"

namespace clip_lora::ops::on_cuda {

/// Whether the kernels take these rows and updates; where not, that is reported. `weights`: null where the
/// rows are not normalised.
bool can_append_forward(const at::Tensor& x, const LayerNormWeights* weights, const DownProjection& down);
bool can_append_backward(const at::Tensor& d_rows, const at::Tensor& x, const LayerNormWeights* weights,
                         const DownProjection& down, const at::Tensor& residual, const at::Tensor& d_a);
bool can_sum_up_gradient(const at::Tensor& dy, const at::Tensor& down_columns,
                         const std::array<std::int64_t, 3>& ranks, std::int64_t width, const at::Tensor& d_b);

Normalised append_forward(const at::Tensor& x, const LayerNormWeights* weights, const DownProjection& down);
at::Tensor append_backward(const at::Tensor& d_rows, const at::Tensor& x, const Normalised& normalised,
                           const LayerNormWeights* weights, const DownProjection& down,
                           const at::Tensor& residual, const at::Tensor& d_a, bool needs_dx);
void up_projection_gradient(const at::Tensor& dy, const at::Tensor& down_columns,
                            const std::array<std::int64_t, 3>& ranks, const std::array<double, 3>& scalings,
                            std::int64_t width, const at::Tensor& d_b);

}  // namespace clip_lora::ops::on_cuda
