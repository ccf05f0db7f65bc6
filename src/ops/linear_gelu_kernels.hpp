#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// A product of rows and a weight with GELU in its epilogue, in float16 or bfloat16. Addresses are multiples
/// of 16 bytes; strides, features and inputs of 8 values.
struct GeluProduct {
  const void* rows = nullptr;  ///< [T, inputs]
  std::int64_t row_stride = 0;
  const void* weight = nullptr;  ///< forward [features, inputs], backward [inputs, features]
  std::int64_t weight_stride = 0;
  void* out = nullptr;  ///< [T, features], neighbours like hidden
  int row_count = 0;
  int features = 0;
  int inputs = 0;
  bool quick = false;
};

/// out = gelu(rows weightᵀ + bias), and the argument of gelu to `hidden` if that is not null. Returns whether
/// it was launched.
bool launch_linear_gelu(const GeluProduct& product, const void* bias, void* hidden, Element element,
                        cudaStream_t stream);

/// out = (rows weight) · gelu'(hidden), likewise.
bool launch_gelu_linear_backward(const GeluProduct& product, const void* hidden, Element element,
                                 cudaStream_t stream);

}  // namespace clip_lora::ops
