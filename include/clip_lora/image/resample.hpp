#pragma once

#include <cstdint>

#include "clip_lora/image/image.hpp"

namespace clip_lora::image {

/// The part `box` of `image`.
Image crop(const Image& image, const Box& box);

/// The left-right mirror image.
Image flip_horizontally(const Image& image);

/// Antialiased bicubic resize (coefficient −0.5) to [height, width], bit for bit Pillow's
/// `image.resize((width, height), BICUBIC)`: a horizontal and a vertical pass, each rounded to 8 bits, with
/// weights in fixed point of 22 fractional bits. Source: Pillow src/libImaging/Resample.c.
Image resize_bicubic(const Image& image, int height, int width);

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

/// The same pixels as crop(resize_bicubic(image, full_height, full_width), {top, left, height, width}),
/// computing no others.
Image resize_bicubic(const Image& image, const ResizeWindow& window);

}  // namespace clip_lora::image
