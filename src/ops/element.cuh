#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// Eight neighbours of a row, moved as one or two 16-byte accesses. The address is a multiple of 16 bytes.
template <typename T>
struct alignas(16) Eight {
  T values[8];
};

template <typename T>
__device__ __forceinline__ float to_float(T value) {
  return static_cast<float>(value);
}

template <typename T>
__device__ __forceinline__ T from_float(float value) {
  return static_cast<T>(value);
}

/// Calls run(T{}) with the C++ type of `element`.
template <typename Run>
void with_type(Element element, const Run& run) {
  switch (element) {
    case Element::kFloat16:
      return run(__half{});
    case Element::kBFloat16:
      return run(__nv_bfloat16{});
    case Element::kFloat32:
      return run(float{});
  }
}

}  // namespace clip_lora::ops
