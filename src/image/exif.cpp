#include "exif.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

// Source: CIPA DC-008 (Exif), sections 4.5.4 (the block) and 4.6 (the tag); TIFF 6.0, section 2
// (directories).
namespace clip_lora::image {
namespace {

using namespace std::string_view_literals;

constexpr int kUpright = 1;
constexpr std::uint32_t kOrientationTag = 0x0112;
constexpr std::uint32_t kShort = 3;  // types of values, of two and of four bytes
constexpr std::uint32_t kLong = 4;
constexpr std::uint64_t kEntryBytes = 12;  // tag, type (two bytes each), number of values, value (four each)

constexpr std::size_t kPixelBytes = 3;

}  // namespace

int exif_orientation(Bytes exif) {
  constexpr auto kPrefix = "Exif\0\0"sv;
  if (has_at(exif, 0, kPrefix)) exif = exif.subspan(kPrefix.size());
  const bool is_big_endian = has_at(exif, 0, "MM\0*"sv);
  if (!is_big_endian && !has_at(exif, 0, "II*\0"sv)) return kUpright;
  /// 0 where the block ends too early.
  const auto number = [&](std::uint64_t offset, int count) -> std::uint32_t {
    if (offset + static_cast<std::uint64_t>(count) > exif.size()) return 0;
    return is_big_endian ? big_endian(exif, offset, count) : little_endian(exif, offset, count);
  };

  int orientation = kUpright;
  const std::uint64_t directory = number(4, 4);
  std::uint64_t entry = directory + 2;
  for (std::uint32_t left = number(directory, 2); left > 0 && entry + kEntryBytes <= exif.size(); --left) {
    const std::uint32_t type = number(entry + 2, 2);
    const bool is_orientation = number(entry, 2) == kOrientationTag && (type == kShort || type == kLong);
    const std::uint32_t value = is_orientation ? number(entry + 8, type == kShort ? 2 : 4) : 0;
    if (value >= 1 && value <= 8) orientation = static_cast<int>(value);
    entry += kEntryBytes;
  }
  return orientation;
}

Image turn_upright(Image image, int orientation) {
  if (orientation == kUpright) return image;
  const bool is_transposed = orientation >= 5;  // its rows are the columns of the upright picture
  const bool from_the_right = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_the_bottom = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Image upright{is_transposed ? image.width : image.height, is_transposed ? image.height : image.width,
                std::vector<std::uint8_t>(image.rgb.size())};
  std::uint8_t* out = upright.rgb.data();
  for (int y = 0; y < upright.height; ++y) {
    for (int x = 0; x < upright.width; ++x) {
      int row = is_transposed ? x : y;
      int column = is_transposed ? y : x;
      if (from_the_bottom) row = image.height - 1 - row;
      if (from_the_right) column = image.width - 1 - column;
      const std::size_t pixel = static_cast<std::size_t>(row) * static_cast<std::size_t>(image.width) +
                                static_cast<std::size_t>(column);
      out = std::copy_n(image.rgb.data() + pixel * kPixelBytes, kPixelBytes, out);
    }
  }
  return upright;
}

}  // namespace clip_lora::image
