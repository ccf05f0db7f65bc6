#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// x Wᵀ + bias + residual, products summed in float32. x: [T, K]; weight: [N, K]; bias: [N] or undefined;
/// residual: [T, N] or undefined. Rows of x and weight may lie apart (a stride above K). Returns [T, N] of x's type.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {},
                  const at::Tensor& residual = {});

/// The gradient of linear's x: dy W + residual. dy: [T, N]; weight: [N, K]; residual: [T, K] or undefined;
/// returns [T, K].
at::Tensor linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& residual = {});

/// Whether float32 products on CUDA may be rounded to TF32. Off by default.
void allow_tf32(bool allow);

}  // namespace clip_lora::ops
