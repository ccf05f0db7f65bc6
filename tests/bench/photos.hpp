#pragma once

#include <filesystem>

namespace clip_lora::bench {

/// Writes `count` JPEGs of 12 megapixels and some 4 MB, which are as hard to decode as photos: smooth
/// colours, texture and noise, each picture another. They go to `classes` folders below `folder`, in turn.
void write_photos(const std::filesystem::path& folder, int count, int classes, int workers);

}  // namespace clip_lora::bench
