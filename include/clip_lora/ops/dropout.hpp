#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace clip_lora::ops {

/// Keep masks that are drawn where they are needed and never stored. Entry (row, column) of mask `m` is a bit of
/// Philox4x32-10 (Salmon et al. 2011), a function of `state`, `stream`, m, the row's number and the column alone: a
/// backward pass, a captured graph's replay and another device draw the same masks again.
struct Dropout {
  double rate = 0.0;        ///< probability of a zero, [0, 1); exact to 2^-16
  at::Tensor state;         ///< [2] int64 on the rows' device: seed, iteration. May be undefined if rate is 0
  std::int64_t stream = 0;  ///< draws of different streams are independent: one per layer
  std::int64_t prefix = 0;  ///< rows from here on have the number row + skip: a chunk of packed prompts draws
  std::int64_t skip = 0;    ///< what the whole would have drawn for its rows

  /// The probability with which an entry is kept, the multiple of 2^-16 nearest to 1 − rate.
  double keep() const;
};

/// The masks themselves, [masks, rows, width] float32 of 0 and 1 on state's device: for definitions and tests.
at::Tensor dropout_masks(const Dropout& dropout, std::int64_t masks, std::int64_t rows, std::int64_t width);

}  // namespace clip_lora::ops
