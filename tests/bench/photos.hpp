#pragma once

#include <filesystem>

namespace clip_lora::bench {

/// Of pictures, in pixels. By default a camera's.
struct PhotoSize {
  int height_px = 3000;
  int width_px = 4000;
};

/// Writes `count` JPEGs (of 12 megapixels and some 4 MB by default), which are as hard to decode as photos:
/// smooth colours, texture and noise, each picture another. They go to `classes` folders below `folder`, in
/// turn.
void write_photos(const std::filesystem::path& folder, int count, int classes, PhotoSize size, int workers);

}  // namespace clip_lora::bench
