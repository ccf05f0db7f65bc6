#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "support/pictures.hpp"

// PNG files of every kind, byte by byte. Source: W3C, Portable Network Graphics; RFC 1950 and 1951.
namespace clip_lora::testing {

inline std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

inline std::string png_chunk(const std::string& type, const std::string& content) {
  const std::string covered = type + content;
  const std::span bytes(reinterpret_cast<const std::uint8_t*>(covered.data()), covered.size());
  return big_endian(static_cast<std::uint32_t>(content.size())) + covered + big_endian(crc32(bytes));
}

/// A zlib stream of one stored (uncompressed) block; at most 65,535 bytes.
inline std::string zlib_stored(std::string_view raw) {
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const char byte : raw) {
    a = (a + static_cast<std::uint8_t>(byte)) % 65521;
    b = (b + a) % 65521;
  }
  const auto low = static_cast<char>(raw.size() & 0xff);
  const auto high = static_cast<char>(raw.size() >> 8);
  return std::string("\x78\x01\x01", 3) + low + high + static_cast<char>(~low) + static_cast<char>(~high) +
         std::string(raw) + big_endian(b << 16 | a);
}

struct PngKind {
  int color_type = 2;  ///< 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGBA
  int bit_depth = 8;
};

/// A PNG whose rows of samples follow each other in `samples`; the chunks in `extra` go before the picture
/// data.
inline std::string build_png(PngKind kind, std::uint32_t height, std::uint32_t width,
                             std::string_view samples, const std::string& extra = "") {
  const std::size_t row_bytes = samples.size() / height;
  std::string raw;
  for (std::uint32_t row = 0; row < height; ++row) {
    raw += '\0';  // filter type: none
    raw += samples.substr(row * row_bytes, row_bytes);
  }
  const std::string header = big_endian(width) + big_endian(height) + static_cast<char>(kind.bit_depth) +
                             static_cast<char>(kind.color_type) + std::string(3, '\0');
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + extra + png_chunk("IDAT", zlib_stored(raw)) +
         png_chunk("IEND", "");
}

}  // namespace clip_lora::testing
