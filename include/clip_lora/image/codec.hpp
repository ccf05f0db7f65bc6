#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "clip_lora/image/image.hpp"

namespace clip_lora::image {

/// Whether a photo is turned as its EXIF orientation says (JPEG, PNG, WebP).
enum class Orientation {
  kIgnoreExif,  ///< as Pillow's open() and the reference
  kApplyExif    ///< as Pillow's ImageOps.exif_transpose
};

/// Decodes a JPEG, PNG, GIF (its first frame), WebP or BMP to the pixels of Pillow's `convert("RGB")`: the
/// content decides the format, alpha is dropped. Throws DataError for a file that is missing, empty,
/// truncated, no image, or of a kind that would come out otherwise than Pillow's (animated WebP, compressed
/// BMP, incomplete progressive JPEG, TIFF), naming the file and the reason. A broken EXIF block is as none.
/// Thread-safe. `memory` may be the rgb of an image that is no longer needed: a JPEG is decoded there, since
/// fresh pages for a large photo cost half as much as decoding it.
Image decode_image(const std::filesystem::path& path, Orientation orientation = Orientation::kIgnoreExif,
                   std::vector<std::uint8_t> memory = {});

/// Height and width of what decode_image would return (before turning), from the file's first bytes. Throws
/// DataError for a file that is missing, empty, no image, or of a refused kind that its header shows.
ImageSize read_image_size(const std::filesystem::path& path);

/// Writes `image` losslessly as PNG, atomically. Throws ConfigError if the path cannot be written.
void write_png(const std::filesystem::path& path, const Image& image);

/// `image` as a JPEG file's bytes, colours at half the resolution. quality: 1 … 100.
std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality);

}  // namespace clip_lora::image
