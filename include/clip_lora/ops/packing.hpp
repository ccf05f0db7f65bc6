#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace clip_lora::ops {

/// Where the sequences of a batch lie in rows [T, D]: first the P rows that begin every sequence, stored
/// once, then each sequence's own rows, end to end.
struct Packing {
  std::int64_t sequences = 0;  ///< N
  std::int64_t prefix = 0;     ///< P, above 0 only where causal
  std::int64_t rows = 0;       ///< T, the prefix and all own rows
  std::int64_t longest = 0;    ///< own rows of the longest sequence
  bool causal = false;  ///< a row attends to itself and earlier ones, the prefix being earlier than all
  at::Tensor offsets;   ///< [N + 1] int32: sequence i's own rows are offsets[i] … offsets[i + 1] − 1
  at::Tensor ends;      ///< [N] int64: the row that stands for a sequence, its last if causal, else its first
  at::Tensor tiles;     ///< [M, 5] int32, only where causal: see pack_prompts; tiles of no rows are ignored

  /// Whether all sequences have equally many rows and no prefix: rows are [N, L, D] then.
  bool is_dense() const { return prefix == 0 && rows == sequences * longest; }
  Packing to(at::Device device) const;
};

/// Images: `sequences` sequences of `length` rows each, whose first is the class token.
Packing pack_images(std::int64_t sequences, std::int64_t length, at::Device device);

/// Prompts: `own_lengths` rows each (at least one, the last is the end token) after `prefix` common ones.
/// Packing::tiles cuts all rows, in order, into tiles of at most 16 that are either whole sequences (the
/// prefix is one, alone in its tiles) or a part of a longer one. Of each: its first row; the number of rows;
/// the first row of its first sequence and the row after its last sequence's last, beyond the tile where that
/// is only a part; and a mask whose bit i says that the tile's row i begins a sequence.
Packing pack_prompts(const std::vector<std::int64_t>& own_lengths, std::int64_t prefix, at::Device device);

}  // namespace clip_lora::ops
