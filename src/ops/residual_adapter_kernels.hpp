#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// change = residual + z + s·δ·change of rows × width neighbours, in place; the width is a multiple of 8.
/// scale: s, on the device; factors: δ of each row, or null: 1. Addresses are multiples of 16 bytes.
void launch_add_change(void* change, const void* z, const void* residual, const float* scale,
                       const float* factors, std::int64_t rows, std::int64_t width, Element element,
                       cudaStream_t stream);

/// out = δ·x of rows × width neighbours, likewise.
void launch_scale_rows(const void* x, const float* factors, void* out, std::int64_t rows, std::int64_t width,
                       Element element, cudaStream_t stream);

/// out = s·weight of `count` neighbours, a multiple of 8.
void launch_scale_weight(const void* weight, const float* scale, void* out, std::int64_t count,
                         Element element, cudaStream_t stream);

constexpr int kAdapterGradientBlocks = 128;

/// From `product`, the gradient of s·W: that of W, s·product, set or added; and the parts of ⟨W, product⟩,
/// which is that of s. parts: [kAdapterGradientBlocks].
void launch_adapter_gradient(const float* product, const void* weight, const float* scale, float* d_weight,
                             float* parts, std::int64_t count, bool add, Element element,
                             cudaStream_t stream);

}  // namespace clip_lora::ops
