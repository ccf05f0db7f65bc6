#pragma once

#include <cstdint>
#include <vector>

namespace clip_lora::image {

/// An 8-bit RGB picture in memory, rows from the top, channels interleaved: rgb[(y * width + x) * 3 +
/// channel].
struct Image {
  int height = 0;
  int width = 0;
  std::vector<std::uint8_t> rgb;  ///< height · width · 3 bytes
};

struct ImageSize {
  int height = 0;
  int width = 0;
};

/// A rectangle of pixels.
struct Box {
  int top = 0;
  int left = 0;
  int height = 0;
  int width = 0;
};

}  // namespace clip_lora::image
