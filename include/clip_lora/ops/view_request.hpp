#pragma once

#include <cstdint>

namespace clip_lora::ops {

/// One view of a picture in a store of bytes: which rectangle is seen, and whether mirrored.
struct ViewRequest {
  std::int64_t begin = 0;  ///< of the picture's first byte in the store; rows from the top, RGB interleaved
  std::int32_t width = 0;  ///< of the picture
  std::int32_t height = 0;
  std::int32_t top = 0;  ///< the rectangle
  std::int32_t left = 0;
  std::int32_t box_height = 0;
  std::int32_t box_width = 0;
  std::int32_t flip = 0;  ///< 1: mirrored
  std::int32_t padding = 0;
};
static_assert(sizeof(ViewRequest) == 40);

/// How many bytes a store goes on behind its last picture: pictures are read by whole words, and a little
/// further than they go.
inline constexpr std::int64_t kStorePadding = 16;

}  // namespace clip_lora::ops
