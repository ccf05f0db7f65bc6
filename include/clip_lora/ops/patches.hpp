#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>

#include "clip_lora/ops/view_request.hpp"

namespace clip_lora::ops {

/// (bytes · rescale_factor − mean) / standard_deviation, by channel.
struct PixelNormalisation {
  double rescale_factor = 1.0 / 255.0;
  std::array<float, 3> mean = {};
  std::array<float, 3> standard_deviation = {};
};

/// The patches of square pictures as rows of a matrix, what a patch embedding's [D, 3 · patch · patch] weight
/// is multiplied with. pixels: [B, R, R, 3] uint8, R a multiple of patch; returns [B · (R / patch)², 3 ·
/// patch²] of `dtype` on pixels' device, channels first in a row, normalised in float32 with torchvision's
/// rounding (divided by 1/rescale_factor).
/// With `class_row` each picture's rows have one of zeros in front of them, in the class token's place:
/// [B · (1 + (R / patch)²), 3 · patch²].
at::Tensor patch_rows(const at::Tensor& pixels, std::int64_t patch, const PixelNormalisation& normalisation,
                      at::ScalarType dtype, bool class_row = false);

/// Pictures cropped, resized by Pillow's antialiased bicubic filter (bit for bit) and mirrored. store: [n]
/// uint8, going on kStorePadding bytes behind the last picture; requests: [B, sizeof(ViewRequest)] uint8, the
/// structs' bytes, on store's device, of boxes whose sides are at most `largest_side` pixels; returns [B,
/// size_px, size_px, 3] uint8. On CUDA nothing waits for the device, so that it can be captured with requests
/// in a fixed place.
at::Tensor resized_views(const at::Tensor& store, const at::Tensor& requests, std::int64_t size_px,
                         std::int64_t largest_side);

}  // namespace clip_lora::ops
