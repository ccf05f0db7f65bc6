#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// Causal self-attention of packed sequences behind a common prefix, with D = heads · head_width. All
/// contiguous.
struct PackedAttention {
  Element element = Element::kFloat16;
  std::int64_t rows = 0;     ///< T
  std::int64_t prefix = 0;   ///< P
  std::int64_t longest = 0;  ///< own rows of the longest sequence
  std::int64_t heads = 0;    ///< H
  std::int64_t head_width = 0;
  std::int64_t tiles = 0;                   ///< M
  const std::int32_t* tile_list = nullptr;  ///< [M, 5], Packing::tiles
  const void* qkv = nullptr;                ///< [T, 3D]
  void* attended = nullptr;                 ///< [T, D], read by the backward
  float* log_sum_exp = nullptr;             ///< [H, T]
  const void* d_rows = nullptr;             ///< [T, D]
  void* d_qkv = nullptr;                    ///< [T, 3D]
  float* prefix_sums = nullptr;  ///< [packed_attention_prefix_sums(…), P, 2D], temporary, if P > 0
};

/// 16-bit types on sm_80 or newer, head widths that are multiples of 8 up to 128.
bool packed_attention_fits(Element element, std::int64_t head_width);

/// How many partial sums of the prefix's gradients the backward makes.
std::int64_t packed_attention_prefix_sums(const PackedAttention& arguments);

void launch_packed_attention(const PackedAttention& arguments, cudaStream_t stream);
void launch_packed_attention_backward(const PackedAttention& arguments, cudaStream_t stream);

}  // namespace clip_lora::ops
