#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "dropout_bits.hpp"
#include "element.hpp"

namespace clip_lora::ops {

/// words: [rows][words of a row][masks], for the rows from `first_row` on.
void launch_draw_words(const DropoutDraw& draw, std::int64_t first_row, std::int64_t rows, int words,
                       int masks, std::int32_t* drawn, cudaStream_t stream);

/// out = factor · x where mask `mask` of `drawn` keeps an entry, else 0. x: rows of `width`, x_stride apart;
/// out: [rows, width].
void launch_apply_mask(const void* x, std::int64_t x_stride, const std::int32_t* drawn, int mask, int masks,
                       std::int64_t rows, int width, float factor, void* out, Element element,
                       cudaStream_t stream);

}  // namespace clip_lora::ops
