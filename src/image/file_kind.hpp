#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "clip_lora/image/image.hpp"

// What the bytes of a picture file say about themselves, before anything decodes them. Private to this room.
namespace clip_lora::image {

using Bytes = std::span<const std::uint8_t>;

enum class FileKind { kJpeg, kPng, kGif, kWebp, kBmp, kTiff, kUnknown };

/// The kind by the file's signature, whatever its name.
FileKind file_kind(Bytes bytes);

/// Throws DataError if [height, width] has no pixel, or more than Pillow opens.
void require_decodable_size(std::uint64_t height, std::uint64_t width);

/// Throws DataError for a large picture in a file of so few bytes that it could be of one colour at best: memory for
/// hundreds of megabytes of pixels should not be taken on a few bytes' word.
void require_plausible_size(const ImageSize& size, std::size_t file_bytes);

/// Whether `text` stands at `offset`.
bool has_at(Bytes bytes, std::size_t offset, std::string_view text);

/// The number in `count` ≤ 4 bytes from `offset` on.
std::uint32_t little_endian(Bytes bytes, std::size_t offset, int count);
std::uint32_t big_endian(Bytes bytes, std::size_t offset, int count);

/// Throws DataError: the file is truncated, and what it has not.
[[noreturn]] void fail_truncated(Bytes bytes, const std::string& missing);

struct JpegFrame {
  int height = 0;
  int width = 0;
  int components = 0;  ///< 1 grey, 3 colour, 4 CMYK or YCCK
  Bytes exif = {};     ///< a part of the file; empty without
};

/// Walks a JPEG's markers from the start to the end-of-image marker that closes its scans (a thumbnail inside
/// a header segment is stepped over with its segment). Throws DataError, naming no file, for a file that ends
/// before that, holds no picture or one of another number of components, or is progressive without its last
/// scans: how libjpeg-turbo smooths those depends on its version.
JpegFrame read_jpeg_frame(Bytes bytes);

/// From the markers before the picture data; the file may end there. Throws DataError as above.
ImageSize jpeg_size(Bytes bytes);

struct Png {
  ImageSize size;
  bool grey_without_alpha = false;
  int bit_depth = 8;
  Bytes exif = {};                        ///< a part of the file; empty without, or if its checksum is wrong
  std::vector<std::uint8_t> pixels_only;  ///< a PNG of the header, the palette and the picture data alone
};

/// Walks a PNG's chunks and keeps those that make pixels: what is left has no transparency, gamma, colour
/// profile, orientation or further frames of an animation, none of which Pillow's `convert("RGB")` looks at.
/// Throws DataError, naming no file, for a file that ends before its end chunk, or whose checksums are wrong.
Png strip_png(Bytes bytes);

/// From the header; the file may end behind it. Throws DataError as above.
ImageSize png_size(Bytes bytes);

/// Throws DataError, naming no file, for a WebP that is truncated or an animation.
void check_webp(Bytes bytes);

/// From the header; the file may end behind it. Throws DataError, naming no file, for a broken one or an
/// animation.
ImageSize webp_size(Bytes bytes);

/// The EXIF block of a WebP, a part of the file; empty without.
Bytes webp_exif(Bytes bytes);

}  // namespace clip_lora::image
