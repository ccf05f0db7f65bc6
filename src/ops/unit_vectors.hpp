#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// Vectors of length one along the last dimension, and what they were divided by.
struct UnitVectors {
  at::Tensor vectors;
  at::Tensor norms;  ///< [..., 1]
};

/// x / |x|, in x's type.
UnitVectors unit_vectors(const at::Tensor& x);

/// The gradient in x of d · (x / |x|): what is left of d across the vector, over its length.
at::Tensor unit_vectors_backward(const at::Tensor& d, const UnitVectors& unit);

}  // namespace clip_lora::ops
