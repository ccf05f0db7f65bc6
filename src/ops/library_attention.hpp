#pragma once

#include "clip_lora/ops/sequence_attention.hpp"

namespace clip_lora::ops {

// Self-attention of B equally long sequences, all rows seeing all, by LibTorch's fused kernels: its own on
// the CPU, cuDNN's on CUDA devices for 16-bit types, and the memory-efficient one otherwise.

/// qkv: [B·L, 3D]. `sequences` is B.
Attended attend_by_library(const at::Tensor& qkv, std::int64_t sequences, std::int64_t heads);
at::Tensor attend_by_library_backward(const at::Tensor& d_rows, const at::Tensor& qkv,
                                      const Attended& attended, std::int64_t sequences, std::int64_t heads);

}  // namespace clip_lora::ops
