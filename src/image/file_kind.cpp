#include "file_kind.hpp"

#include <algorithm>
#include <string_view>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::image {

using namespace std::string_view_literals;

bool has_at(Bytes bytes, std::size_t offset, std::string_view text) {
  return bytes.size() >= offset + text.size() &&
         std::equal(text.begin(), text.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                    [](char a, std::uint8_t b) { return static_cast<std::uint8_t>(a) == b; });
}

std::uint32_t little_endian(Bytes bytes, std::size_t offset, int count) {
  std::uint32_t value = 0;
  for (int i = count - 1; i >= 0; --i) value = value << 8 | bytes[offset + static_cast<std::size_t>(i)];
  return value;
}

std::uint32_t big_endian(Bytes bytes, std::size_t offset, int count) {
  std::uint32_t value = 0;
  for (int i = 0; i < count; ++i) value = value << 8 | bytes[offset + static_cast<std::size_t>(i)];
  return value;
}

void fail_truncated(Bytes bytes, const std::string& missing) {
  throw DataError("the file is truncated: " + missing + " (it has " + std::to_string(bytes.size()) +
                  " bytes)");
}

FileKind file_kind(Bytes bytes) {
  if (has_at(bytes, 0, "\xff\xd8\xff"sv)) return FileKind::kJpeg;
  if (has_at(bytes, 0, "\x89PNG\r\n\x1a\n"sv)) return FileKind::kPng;
  if (has_at(bytes, 0, "GIF87a"sv) || has_at(bytes, 0, "GIF89a"sv)) return FileKind::kGif;
  if (has_at(bytes, 0, "RIFF"sv) && has_at(bytes, 8, "WEBP"sv)) return FileKind::kWebp;
  if (has_at(bytes, 0, "BM"sv)) return FileKind::kBmp;
  if (has_at(bytes, 0, "II*\0"sv) || has_at(bytes, 0, "MM\0*"sv)) return FileKind::kTiff;
  return FileKind::kUnknown;
}

void require_decodable_size(std::uint64_t height, std::uint64_t width) {
  constexpr std::uint64_t kMaxPixels = 178'956'970;  // what Pillow opens
  if (height == 0 || width == 0 || height > kMaxPixels || width > kMaxPixels || height * width > kMaxPixels) {
    throw DataError("the picture has " + std::to_string(width) + " x " + std::to_string(height) +
                    " pixels, expected 1 to " + std::to_string(kMaxPixels) + " in all");
  }
}

void require_plausible_size(const ImageSize& size, std::size_t file_bytes) {
  constexpr std::uint64_t kAnyway = 32U << 20;         // pixels that may be of one colour
  constexpr std::uint64_t kMostPixelsPerByte = 8'256;  // what deflate packs of a PNG of one bit per pixel
  const std::uint64_t pixels =
      static_cast<std::uint64_t>(size.height) * static_cast<std::uint64_t>(size.width);
  if (pixels <= kAnyway || pixels / kMostPixelsPerByte <= file_bytes) return;
  throw DataError("the picture has " + std::to_string(size.width) + " x " + std::to_string(size.height) +
                  " pixels by its header, but the file only " + std::to_string(file_bytes) +
                  " bytes (hint: it is damaged, or of one colour)");
}

}  // namespace clip_lora::image
