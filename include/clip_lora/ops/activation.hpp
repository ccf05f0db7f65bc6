#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// The nonlinearity of a multilayer perceptron: x · sigmoid(1.702 x), or x · Φ(x).
enum class Gelu { kQuick, kExact };

/// Of h [T, M], in float32 inside. Returns [T, M] of h's type.
at::Tensor gelu(const at::Tensor& h, Gelu kind);

/// d_out · gelu'(h), written over d_out and returned. Both [T, M] contiguous.
at::Tensor gelu_backward_(at::Tensor d_out, const at::Tensor& h, Gelu kind);

}  // namespace clip_lora::ops
