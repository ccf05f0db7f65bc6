#pragma once

#include <ATen/core/Tensor.h>

#include "clip_lora/ops/activation.hpp"

namespace clip_lora::ops {

struct Activated {
  at::Tensor hidden;  ///< [T, M], x Wᵀ + bias; undefined if it was not to be kept
  at::Tensor out;     ///< [T, M], gelu of it
};

/// gelu(x Wᵀ + bias). x: [T, K]; weight: [M, K]; bias: [M]; rows of x and weight may lie apart. Equals linear
/// and gelu after it; where a kernel does both at once, hidden is neither read again nor, if nobody keeps it,
/// written.
Activated linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Gelu kind,
                      bool keep_hidden);

/// The gradient of hidden in linear(gelu(hidden), weight): (dy W) · gelu'(hidden). dy: [T, N]; weight: [N,
/// M]; hidden: [T, M] contiguous; returns [T, M].
at::Tensor gelu_linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& hidden,
                                Gelu kind);

}  // namespace clip_lora::ops
