#pragma once

#include <cuda_runtime_api.h>

#include "image_attention_kernels.hpp"

namespace clip_lora::ops {

/// Whether a thread block can hold a head of this width and length, scores' gradients included: 208 tokens in
/// 227 KiB.
bool whole_head_backward_fits(const ImageAttention& attention);
void launch_whole_head_backward(const ImageAttention& attention, cudaStream_t stream);

}  // namespace clip_lora::ops
