#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// Attention of one query per sequence to all rows of the sequence, with D = heads · head_width. All
/// contiguous.
struct EndAttention {
  Element element = Element::kFloat16;
  std::int64_t sequences = 0;  ///< N
  std::int64_t longest = 0;    ///< own rows of the longest sequence
  std::int64_t prefix = 0;     ///< P
  std::int64_t heads = 0;      ///< H
  std::int64_t head_width = 0;
  const std::int32_t* offsets = nullptr;  ///< [N + 1], Packing::offsets
  const void* q = nullptr;                ///< [N, D]
  const void* kv = nullptr;               ///< [T, 2D]
  void* attended = nullptr;               ///< [N, D], read by the backward
  float* log_sum_exp = nullptr;           ///< [N, H]
  const void* d_rows = nullptr;           ///< [N, D]
  void* d_q = nullptr;                    ///< [N, D]
  void* d_kv = nullptr;                   ///< [T, 2D]
  float* prefix_weights = nullptr;        ///< [2, H, P, N], temporary, if P > 0
};

/// Head widths that are multiples of 8 up to 128.
bool end_attention_fits(std::int64_t head_width);

void launch_end_attention(const EndAttention& arguments, cudaStream_t stream);
void launch_end_attention_backward(const EndAttention& arguments, cudaStream_t stream);

}  // namespace clip_lora::ops
