#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// out = gelu(h) of `count` neighbours. Addresses are multiples of 16 bytes.
void launch_gelu(const void* h, void* out, std::int64_t count, bool quick, Element element,
                 cudaStream_t stream);

/// d_out *= gelu'(h), likewise.
void launch_gelu_backward(void* d_out, const void* h, std::int64_t count, bool quick, Element element,
                          cudaStream_t stream);

}  // namespace clip_lora::ops
