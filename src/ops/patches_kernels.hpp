#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops::on_cuda {

struct PatchRowsArguments {
  const std::uint8_t* pixels = nullptr;  ///< [B, R, R, 3]
  void* rows = nullptr;     ///< [B · (R / patch)², 3 · patch²], 16-byte aligned; more with class_row
  std::int64_t images = 0;  ///< B
  int size_px = 0;          ///< R
  int patch = 0;
  bool class_row = false;  ///< a row of zeros goes in front of each image's
  float divisor = 1.0F;    ///< of the bytes
  float mean[3] = {};
  float standard_deviation[3] = {};
};

void launch_patch_rows(const PatchRowsArguments& arguments, Element element, cudaStream_t stream);

}  // namespace clip_lora::ops::on_cuda
