#include <algorithm>
#include <array>
#include <string>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "file_kind.hpp"

// Source: W3C, Portable Network Graphics, sections 5 (chunks) and 11.2 (critical chunks).
namespace clip_lora::image {
namespace {

constexpr std::size_t kSignatureBytes = 8;
constexpr std::size_t kFrameBytes = 12;  // length, type and checksum around a chunk's content
constexpr std::size_t kHeaderBytes = 13;

constexpr std::array<std::uint32_t, 256> make_checksum_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) != 0 ? 0xedb88320U : 0U);
    table[i] = value;
  }
  return table;
}

constexpr auto kChecksumTable = make_checksum_table();

/// The CRC-32 of PNG and zlib.
std::uint32_t checksum(Bytes bytes) {
  std::uint32_t value = 0xffffffffU;
  for (const std::uint8_t byte : bytes) value = (value >> 8) ^ kChecksumTable[(value ^ byte) & 0xff];
  return ~value;
}

bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

struct Chunk {
  std::string type;
  Bytes whole;  ///< with length, type and checksum
  Bytes content;

  /// A lower-case first letter: a decoder may ignore it.
  bool is_ancillary() const { return (type[0] & 0x20) != 0; }
  bool makes_pixels() const { return type == "IHDR" || type == "PLTE" || type == "IDAT" || type == "IEND"; }
};

Chunk chunk_at(Bytes bytes, std::size_t position) {
  const std::size_t rest = bytes.size() - position;
  if (rest < kFrameBytes || big_endian(bytes, position, 4) > rest - kFrameBytes) {
    throw DataError("the file is truncated: a PNG without its IEND chunk (it has " +
                    std::to_string(bytes.size()) + " bytes)");
  }
  const std::size_t length = big_endian(bytes, position, 4);
  const auto type = bytes.subspan(position + 4, 4);
  return {std::string(type.begin(), type.end()), bytes.subspan(position, length + kFrameBytes),
          bytes.subspan(position + 8, length)};
}

bool has_right_checksum(const Chunk& chunk) {
  const Bytes covered = chunk.whole.subspan(4, chunk.content.size() + 4);
  return checksum(covered) == big_endian(chunk.whole, chunk.whole.size() - 4, 4);
}

void check_chunk(const Chunk& chunk) {
  if (!std::ranges::all_of(chunk.type, is_letter))
    throw DataError("broken PNG: a chunk whose type is not in letters");
  if (!chunk.makes_pixels()) throw DataError("broken PNG: unknown critical chunk '" + chunk.type + "'");
  if (!has_right_checksum(chunk)) {
    throw DataError("broken PNG: wrong checksum of chunk '" + chunk.type + "'");
  }
}

void read_header(const Chunk& chunk, Png& png) {
  if (chunk.type != "IHDR" || chunk.content.size() != kHeaderBytes) {
    throw DataError("broken PNG: it does not start with an IHDR chunk of 13 bytes");
  }
  const std::uint32_t width = big_endian(chunk.content, 0, 4);
  const std::uint32_t height = big_endian(chunk.content, 4, 4);
  require_decodable_size(height, width);
  png.size = {static_cast<int>(height), static_cast<int>(width)};
  png.bit_depth = chunk.content[8];
  png.grey_without_alpha = chunk.content[9] == 0;
}

}  // namespace

Png strip_png(Bytes bytes) {
  Png png;
  const auto signature = bytes.first(kSignatureBytes);
  png.pixels_only.assign(signature.begin(), signature.end());
  for (std::size_t position = kSignatureBytes;;) {
    const Chunk chunk = chunk_at(bytes, position);
    if (!chunk.is_ancillary()) {
      check_chunk(chunk);
      const bool is_first = png.pixels_only.size() == kSignatureBytes;
      if (is_first) read_header(chunk, png);
      png.pixels_only.insert(png.pixels_only.end(), chunk.whole.begin(), chunk.whole.end());
    }
    if (chunk.type == "eXIf" && has_right_checksum(chunk)) png.exif = chunk.content;
    if (chunk.type == "IEND") return png;
    position += chunk.whole.size();
  }
}

ImageSize png_size(Bytes bytes) {
  const Chunk header = chunk_at(bytes, kSignatureBytes);
  Png png;
  read_header(header, png);
  check_chunk(header);
  return png.size;
}

}  // namespace clip_lora::image
