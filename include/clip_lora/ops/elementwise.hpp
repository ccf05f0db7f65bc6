#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// x · sigmoid(1.702 x), OpenAI's approximation of GELU. Any shape and floating type.
at::Tensor quick_gelu(const at::Tensor& x);

/// x / ‖x‖₂ over the last axis, in float32. x: [..., E] of any floating type; returns float32.
at::Tensor l2_normalise(const at::Tensor& x);

}  // namespace clip_lora::ops
