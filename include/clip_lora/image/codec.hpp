#pragma once

#include <filesystem>

#include "clip_lora/image/image.hpp"

namespace clip_lora::image {

/// Decodes a JPEG, PNG, GIF (its first frame), WebP or BMP to the pixels of Pillow's `convert("RGB")`: the
/// content decides the format, EXIF orientation is ignored, alpha is dropped. Throws DataError for a file
/// that is missing, empty, truncated, no image, or of a kind that would come out otherwise than Pillow's
/// (animated WebP, compressed BMP, incomplete progressive JPEG, TIFF), naming the file and the reason.
/// Thread-safe.
Image decode_image(const std::filesystem::path& path);

/// Writes `image` losslessly as PNG, atomically. Throws ConfigError if the path cannot be written.
void write_png(const std::filesystem::path& path, const Image& image);

}  // namespace clip_lora::image
