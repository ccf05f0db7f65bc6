#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "file_kind.hpp"

// Source: Google, WebP Container Specification; RFC 6386, section 9.1 (lossy frames); WebP Lossless Bitstream
// Specification, section 3.
namespace clip_lora::image {
namespace {

using namespace std::string_view_literals;

constexpr std::size_t kFirstChunk = 12;            // behind "RIFF", the length and "WEBP"
constexpr std::size_t kContent = kFirstChunk + 8;  // of the first chunk
constexpr std::uint32_t kSideMask = 0x3fff;
constexpr std::uint8_t kAnimationFlag = 0x02;
constexpr std::uint8_t kExifFlag = 0x08;

void require_bytes(Bytes bytes, std::size_t count) {
  if (bytes.size() < count) fail_truncated(bytes, "no header");
}

/// Whether it starts with the chunk of an extended file, whose first byte holds flags.
bool has_flag(Bytes bytes, std::uint8_t flag) {
  return has_at(bytes, kFirstChunk, "VP8X"sv) && (bytes[kContent] & flag) != 0;
}

void refuse_animation(Bytes bytes) {
  if (has_flag(bytes, kAnimationFlag)) {
    throw DataError("animated WebP is not supported (hint: convert it to PNG)");
  }
}

}  // namespace

void check_webp(Bytes bytes) {
  require_bytes(bytes, kContent + 1);
  if (bytes.size() - 8 < little_endian(bytes, 4, 4)) fail_truncated(bytes, "its header promises more data");
  refuse_animation(bytes);
}

ImageSize webp_size(Bytes bytes) {
  require_bytes(bytes, kContent + 5);
  refuse_animation(bytes);
  std::uint32_t height = 0;
  std::uint32_t width = 0;
  if (has_at(bytes, kFirstChunk, "VP8L"sv)) {  // a signature byte, then both sides less one
    const std::uint32_t sides = little_endian(bytes, kContent + 1, 4);
    width = (sides & kSideMask) + 1;
    height = (sides >> 14 & kSideMask) + 1;
  } else if (has_at(bytes, kFirstChunk, "VP8X"sv)) {  // four bytes of flags, then both sides less one
    require_bytes(bytes, kContent + 10);
    width = little_endian(bytes, kContent + 4, 3) + 1;
    height = little_endian(bytes, kContent + 7, 3) + 1;
  } else if (has_at(bytes, kFirstChunk, "VP8 "sv)) {  // a frame tag and a start code of three bytes each
    require_bytes(bytes, kContent + 10);
    width = little_endian(bytes, kContent + 6, 2) & kSideMask;
    height = little_endian(bytes, kContent + 8, 2) & kSideMask;
  } else {
    throw DataError("broken WebP: it does not start with a picture's header");
  }
  require_decodable_size(height, width);
  return {static_cast<int>(height), static_cast<int>(width)};
}

Bytes webp_exif(Bytes bytes) {
  if (bytes.size() <= kContent || !has_flag(bytes, kExifFlag)) return {};
  std::size_t position = kFirstChunk;
  while (position + 8 <= bytes.size()) {
    const std::size_t length = little_endian(bytes, position + 4, 4);
    const Bytes content = bytes.subspan(position + 8);
    if (length > content.size()) break;
    if (has_at(bytes, position, "EXIF"sv)) return content.first(length);
    position += 8 + length + length % 2;  // padded to an even length
  }
  return {};
}

}  // namespace clip_lora::image
