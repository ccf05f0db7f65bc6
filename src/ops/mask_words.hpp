#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "clip_lora/ops/dropout.hpp"
#include "dropout_bits.hpp"

namespace clip_lora::ops {

/// The masks that one set of rows may have.
constexpr std::int64_t kMostMasks = 3;

/// `dropout` as the code that draws takes it; its pointer is valid as long as dropout.state.
DropoutDraw draw_of(const Dropout& dropout);

/// The bits of masks 0 … masks − 1 of `rows` rows from `first_row` on, [rows, words, masks] int32 on state's
/// device; undefined if everything is kept.
at::Tensor draw_mask_words(const Dropout& dropout, std::int64_t masks, std::int64_t first_row,
                           std::int64_t rows, std::int64_t width);

/// factor · x where the mask keeps an entry, else 0. x: [rows, width], rows may lie apart; words as drawn for
/// these rows, or undefined: factor · x everywhere.
at::Tensor apply_mask(const at::Tensor& x, const at::Tensor& words, std::int64_t mask, double factor);

}  // namespace clip_lora::ops
