#pragma once

#include <cstdint>

#include "clip_lora/image/image.hpp"

namespace clip_lora::image {

/// Pillow's resampling filters.
enum class Interpolation { kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos };

/// The part `box` of `image`.
Image crop(const Image& image, const Box& box);

/// The left-right mirror image.
Image flip_horizontally(const Image& image);

/// Resizes to [height, width], bit for bit Pillow's `image.resize((width, height), interpolation)`. All but
/// kNearest are antialiased: a horizontal and a vertical pass, each rounded to 8 bits, with weights in fixed
/// point of 22 fractional bits. Source: Pillow src/libImaging/Resample.c and, for kNearest, Geometry.c.
Image resize(const Image& image, int height, int width, Interpolation interpolation);

/// The same pixels as resize(crop(image, box), height, width, interpolation), without the copy.
Image resize(const Image& image, const Box& box, int height, int width, Interpolation interpolation);

/// A part of a resized picture. The whole may be far larger than memory: a 1 x N strip of which the middle is
/// wanted.
struct ResizeWindow {
  std::int64_t full_height = 0;  ///< the whole picture's size after the resize
  std::int64_t full_width = 0;
  std::int64_t top = 0;  ///< the part of it that is computed
  std::int64_t left = 0;
  int height = 0;
  int width = 0;
};

/// The same pixels as crop(resize(image, full_height, full_width, interpolation), {top, left, height,
/// width}), computing no others.
Image resize(const Image& image, const ResizeWindow& window, Interpolation interpolation);

}  // namespace clip_lora::image
