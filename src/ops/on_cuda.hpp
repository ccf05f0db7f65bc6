#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>

#include "element.hpp"

namespace clip_lora::ops {

/// The kernels' name for a tensor's floating type.
inline Element element_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kHalf:
      return Element::kFloat16;
    case at::kBFloat16:
      return Element::kBFloat16;
    default:
      TORCH_CHECK(tensor.scalar_type() == at::kFloat, "expected a floating type, got ", tensor.scalar_type());
      return Element::kFloat32;
  }
}

/// The stream that LibTorch's own kernels are launched on now.
inline cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

}  // namespace clip_lora::ops
