#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// Self-attention of B images of L tokens, in H heads, on tensor cores: no mask, no dropout, scores scaled by
/// 1/√(head width). Everything is contiguous, of `element` but for log_sum_exp, on the current device; D is
/// heads × head_width. What a launch does not use may be null.
struct ImageAttention {
  Element element;
  std::int64_t images;
  std::int64_t length;
  std::int64_t heads;
  std::int64_t head_width;
  const void* qkv;     ///< [B·L, 3D], heads side by side in each third
  void* rows;          ///< [B·L, D]; the forward writes it, the backward reads it
  float* log_sum_exp;  ///< [B, H, L], natural logarithm, of the scaled scores; written and read likewise
  const void* d_rows;  ///< [B·L, D]
  void* d_qkv;         ///< [B·L, 3D], written whole by the backward
};

/// Whether launch_image_attention takes it: float16 or bfloat16, a head width that is a multiple of 8 up to
/// 128, addresses that are multiples of 16 bytes, compute capability 8.0 or later. Any length.
bool image_attention_fits(const ImageAttention& attention);
void launch_image_attention(const ImageAttention& attention, cudaStream_t stream);

/// The same for the backward, which computes the scores anew and is deterministic.
bool image_attention_backward_fits(const ImageAttention& attention);
void launch_image_attention_backward(const ImageAttention& attention, cudaStream_t stream);

}  // namespace clip_lora::ops
