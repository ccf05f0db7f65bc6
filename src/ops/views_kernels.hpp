#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "clip_lora/ops/view_request.hpp"

namespace clip_lora::ops::on_cuda {

struct ViewsArguments {
  const std::uint8_t* store =
      nullptr;  ///< 4-byte aligned, readable kStorePadding bytes behind the last picture
  const ViewRequest* requests = nullptr;  ///< [B]
  std::uint8_t* views = nullptr;          ///< [B, R, R, 3], 4-byte aligned
  void* scratch = nullptr;                ///< views_scratch_bytes(), 16-byte aligned
  int count = 0;                          ///< B, at most 65,535
  int size_px = 0;                        ///< R
  int largest_side = 0;                   ///< of the boxes
};

/// What the filters' weights take.
std::size_t views_scratch_bytes(int count, int size_px, int largest_side);

void launch_resized_views(const ViewsArguments& arguments, cudaStream_t stream);

}  // namespace clip_lora::ops::on_cuda
