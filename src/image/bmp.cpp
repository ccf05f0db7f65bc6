#include "bmp.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "clip_lora/core/errors.hpp"

// Source: Microsoft, Bitmap Storage: BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER to BITMAPV5HEADER.
namespace clip_lora::image {
namespace {

using Color = std::array<std::uint8_t, 3>;
using Palette = std::array<Color, 256>;
using Masks = std::array<std::uint32_t, 4>;  ///< where a pixel's red, green, blue and alpha are

constexpr std::size_t kFileHeaderBytes = 14;
constexpr std::uint32_t kCoreHeaderBytes = 12;  // OS/2's, with shorter fields
constexpr std::uint32_t kInfoHeaderBytes = 40;
constexpr std::uint32_t kUncompressed = 0;
constexpr std::uint32_t kBitFields = 3;

constexpr Masks kMasks555 = {0x7c00, 0x3e0, 0x1f, 0};
constexpr Masks kMasks565 = {0xf800, 0x7e0, 0x1f, 0};
constexpr Masks kMasks888 = {0xff0000, 0xff00, 0xff, 0};

struct Header {
  std::uint32_t bytes = 0;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  bool top_down = false;
  std::uint32_t bits = 0;  ///< per pixel
  std::uint32_t compression = kUncompressed;
  std::uint32_t colors = 0;  ///< entries of the palette
  Masks masks = {};
};

[[noreturn]] void refuse(const std::string& kind) {
  throw DataError("a BMP " + kind + " is not supported (hint: convert it to PNG)");
}

void require_bytes(Bytes bytes, std::uint64_t count, const std::string& missing) {
  if (bytes.size() < count) fail_truncated(bytes, missing);
}

std::size_t end_of(const Header& header) { return kFileHeaderBytes + header.bytes; }

Header read_core_header(Bytes bytes) {
  Header header;
  header.bytes = kCoreHeaderBytes;
  header.width = little_endian(bytes, 18, 2);
  header.height = little_endian(bytes, 20, 2);
  header.bits = little_endian(bytes, 24, 2);
  return header;
}

Header read_info_header(Bytes bytes, std::uint32_t header_bytes) {
  Header header;
  header.bytes = header_bytes;
  header.width = little_endian(bytes, 18, 4);
  header.height = little_endian(bytes, 22, 4);
  header.top_down = bytes[25] == 0xff;  // a negative height
  if (header.top_down) header.height = 0U - header.height;
  header.bits = little_endian(bytes, 28, 2);
  header.compression = little_endian(bytes, 30, 4);
  header.colors = little_endian(bytes, 46, 4);
  return header;
}

/// The four masks stand behind the fields of the oldest header, whether or not the header's size counts them;
/// alpha's only if it does.
Masks read_masks(Bytes bytes, const Header& header) {
  constexpr std::size_t kFirst = kFileHeaderBytes + kInfoHeaderBytes;
  require_bytes(bytes, kFirst + 12, "no colour masks");
  Masks masks{};
  const std::size_t count = end_of(header) >= kFirst + 16 ? 4 : 3;
  for (std::size_t i = 0; i < count; ++i) masks[i] = little_endian(bytes, kFirst + 4 * i, 4);
  return masks;
}

Masks default_masks(std::uint32_t bits) { return bits == 16 ? kMasks555 : kMasks888; }

bool is_known(const Masks& masks, std::uint32_t bits) {
  constexpr std::array<Masks, 7> k32Bits = {{{0xff0000, 0xff00, 0xff, 0},
                                             {0xff000000, 0xff0000, 0xff00, 0},
                                             {0xff000000, 0xff00, 0xff, 0},
                                             {0xff000000, 0xff0000, 0xff00, 0xff},
                                             {0xff, 0xff00, 0xff0000, 0xff000000},
                                             {0xff0000, 0xff00, 0xff, 0xff000000},
                                             {0xff000000, 0xff00, 0xff, 0xff0000}}};
  if (bits == 32) return std::ranges::find(k32Bits, masks) != k32Bits.end();
  const Masks colors = {masks[0], masks[1], masks[2], 0};
  return bits == 24 ? colors == kMasks888 : bits == 16 && (colors == kMasks555 || colors == kMasks565);
}

/// The masks of a compressed header, checked; the usual ones without any.
Masks masks_of(Bytes bytes, const Header& header) {
  if (header.compression != kBitFields) return default_masks(header.bits);
  Masks masks = read_masks(bytes, header);
  if (header.bits == 32 && masks == Masks{}) masks = kMasks888;
  if (!is_known(masks, header.bits)) refuse("with an unusual layout of its colour bits");
  return masks;
}

Header read_header(Bytes bytes) {
  constexpr std::array<std::uint32_t, 7> kHeaderBytes = {
      kCoreHeaderBytes, kInfoHeaderBytes, 52, 56, 64, 108, 124};
  constexpr std::array<std::uint32_t, 6> kBits = {1, 4, 8, 16, 24, 32};
  require_bytes(bytes, kFileHeaderBytes + 4, "no header");
  const std::uint32_t header_bytes = little_endian(bytes, kFileHeaderBytes, 4);
  if (std::ranges::find(kHeaderBytes, header_bytes) == kHeaderBytes.end()) {
    refuse("with a header of " + std::to_string(header_bytes) + " bytes");
  }
  require_bytes(bytes, kFileHeaderBytes + header_bytes, "no header");
  Header header =
      header_bytes == kCoreHeaderBytes ? read_core_header(bytes) : read_info_header(bytes, header_bytes);
  require_decodable_size(header.height, header.width);
  if (std::ranges::find(kBits, header.bits) == kBits.end()) {
    refuse("of " + std::to_string(header.bits) + " bits a pixel");
  }
  if (header.compression != kUncompressed && header.compression != kBitFields) {
    refuse("that is compressed (kind " + std::to_string(header.compression) + ")");
  }
  header.masks = masks_of(bytes, header);
  if (header.colors == 0 && header.bits <= 8) header.colors = 1U << header.bits;
  return header;
}

std::size_t palette_entry_bytes(const Header& header) { return header.bytes == kCoreHeaderBytes ? 3 : 4; }

/// Whether the palette is black and white, or counts 0, 1, 2 and so on: Pillow then reads the pixels as grey.
bool is_grey_ramp(const Palette& palette, std::uint32_t colors) {
  for (std::uint32_t i = 0; i < colors; ++i) {
    Color grey;
    grey.fill(static_cast<std::uint8_t>(colors == 2 ? i * 255 : i));
    if (palette[i] != grey) return false;
  }
  return true;
}

/// Entries of blue, green, red; black beyond their end.
Palette read_palette(Bytes bytes, const Header& header) {
  if (header.colors > 256) refuse("with a palette of " + std::to_string(header.colors) + " colours");
  const std::size_t entry_bytes = palette_entry_bytes(header);
  require_bytes(bytes, end_of(header) + header.colors * entry_bytes, "no palette");
  Palette palette{};
  for (std::size_t i = 0; i < header.colors; ++i) {
    std::ranges::reverse_copy(bytes.subspan(end_of(header) + i * entry_bytes, 3), palette[i].begin());
  }
  if (!is_grey_ramp(palette, header.colors)) return palette;
  if (header.bits != (header.colors == 2 ? 1U : 8U)) {
    refuse("of " + std::to_string(header.bits) + " bits with a grey palette of " +
           std::to_string(header.colors) + " entries");
  }
  if (header.bits == 8) {  // pixels beyond the palette's end are grey as well
    for (std::size_t i = 0; i < palette.size(); ++i) palette[i].fill(static_cast<std::uint8_t>(i));
  }
  return palette;
}

/// Where the rows begin. As in Pillow, 0 means behind all headers, and the palette is stepped over where the
/// offset forgets it.
std::uint64_t first_row_offset(Bytes bytes, const Header& header) {
  const std::uint64_t offset = little_endian(bytes, 10, 4);
  const std::uint64_t palette_bytes = header.bits <= 8 ? header.colors * palette_entry_bytes(header) : 0;
  const bool masks_follow = header.compression == kBitFields && header.bytes == kInfoHeaderBytes;
  if (offset == 0) return end_of(header) + palette_bytes + (masks_follow ? 12 : 0);
  return offset == end_of(header) ? offset + palette_bytes : offset;
}

/// The palette index of pixel `x`: the highest bits of a byte come first.
std::size_t index_at(const std::uint8_t* row, std::uint32_t x, std::uint32_t bits) {
  const std::uint32_t per_byte = 8 / bits;
  const std::uint32_t shift = 8 - bits * (x % per_byte + 1);
  return row[x / per_byte] >> shift & ((1U << bits) - 1);
}

/// The bits of `mask`, stretched to 0 … 255, rounded down.
std::uint8_t channel(std::uint32_t pixel, std::uint32_t mask) {
  return static_cast<std::uint8_t>(std::uint64_t{pixel & mask} * 255 / mask);
}

Color color_at(Bytes row, std::uint32_t x, const Header& header) {
  const std::uint32_t pixel_bytes = header.bits / 8;
  const std::uint32_t pixel = little_endian(row, std::size_t{x} * pixel_bytes, static_cast<int>(pixel_bytes));
  return {channel(pixel, header.masks[0]), channel(pixel, header.masks[1]), channel(pixel, header.masks[2])};
}

}  // namespace

ImageSize bmp_size(Bytes bytes) {
  const Header header = read_header(bytes);
  return {static_cast<int>(header.height), static_cast<int>(header.width)};
}

Image decode_bmp(Bytes bytes) {
  const Header header = read_header(bytes);
  const Palette palette = header.bits <= 8 ? read_palette(bytes, header) : Palette{};
  const std::uint64_t row_bits = std::uint64_t{header.width} * header.bits;
  const std::uint64_t row_stride = (row_bits + 31) / 32 * 4;
  const std::uint64_t row_bytes = (row_bits + 7) / 8;  // the last row needs no padding
  const std::uint64_t first = first_row_offset(bytes, header);
  require_bytes(bytes, first + row_stride * (header.height - 1) + row_bytes, "its header promises more rows");

  Image image{static_cast<int>(header.height), static_cast<int>(header.width), {}};
  image.rgb.resize(std::size_t{header.height} * header.width * 3);
  auto out = image.rgb.begin();
  for (std::uint32_t y = 0; y < header.height; ++y) {
    const std::uint32_t file_row = header.top_down ? y : header.height - 1 - y;
    const Bytes row = bytes.subspan(first + row_stride * file_row, row_bytes);
    for (std::uint32_t x = 0; x < header.width; ++x) {
      const Color color =
          header.bits <= 8 ? palette[index_at(row.data(), x, header.bits)] : color_at(row, x, header);
      out = std::ranges::copy(color, out).out;
    }
  }
  return image;
}

}  // namespace clip_lora::image
