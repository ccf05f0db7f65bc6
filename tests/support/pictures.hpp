#pragma once

#include <cstdint>
#include <span>

#include "clip_lora/image/image.hpp"

namespace clip_lora::testing {

/// A picture by formula, so that another program can make the same: (37 x + 91 y + 53 channel + 7 x y) mod
/// 256.
inline image::Image formula_picture(int height, int width) {
  image::Image picture{height, width, {}};
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int channel = 0; channel < 3; ++channel) {
        picture.rgb.push_back(static_cast<std::uint8_t>((37 * x + 91 * y + 53 * channel + 7 * x * y) % 256));
      }
    }
  }
  return picture;
}

/// zlib's CRC-32, Python's zlib.crc32().
inline std::uint32_t crc32(std::span<const std::uint8_t> bytes) {
  std::uint32_t value = 0xffffffffU;
  for (const std::uint8_t byte : bytes) {
    value ^= byte;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1U) != 0 ? 0xedb88320U : 0U);
  }
  return ~value;
}

}  // namespace clip_lora::testing
