#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/decoding.hpp"

namespace clip_lora::image {
namespace {

using namespace std::string_literals;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string little_endian(std::uint32_t value, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i, value >>= 8) bytes += static_cast<char>(value & 0xff);
  return bytes;
}

struct Kind {
  std::uint32_t bits = 24;
  std::uint32_t compression = 0;
  std::uint32_t colors = 0;
  std::string after_header = {};  ///< palette or masks
};

/// A BMP with the header of 40 bytes; `rows` from the bottom, padded to four bytes each.
std::string bmp(const Kind& kind, std::uint32_t width, std::int32_t height, const std::string& rows) {
  const auto offset = static_cast<std::uint32_t>(54 + kind.after_header.size());
  return "BM"s + little_endian(0, 8) + little_endian(offset, 4) + little_endian(40, 4) +
         little_endian(width, 4) + little_endian(static_cast<std::uint32_t>(height), 4) +
         little_endian(1, 2) + little_endian(kind.bits, 2) + little_endian(kind.compression, 4) +
         little_endian(0, 12) + little_endian(kind.colors, 4) + little_endian(0, 4) + kind.after_header +
         rows;
}

/// Blue, green, red and a byte without meaning.
std::string entry(int blue, int green, int red) {
  return {static_cast<char>(blue), static_cast<char>(green), static_cast<char>(red), '\0'};
}

using Bmp = clip_lora::testing::DecodingTest;

TEST_F(Bmp, ReadsRowsFromTheBottomOrTheTop) {
  const std::string rows = "\x01\x02\x03\x00\x04\x05\x06\x00"s;
  EXPECT_THAT(pixels(bmp({}, 1, 2, rows)), ElementsAre(6, 5, 4, 3, 2, 1));
  EXPECT_THAT(pixels(bmp({}, 1, -2, rows)), ElementsAre(3, 2, 1, 6, 5, 4));
}

TEST_F(Bmp, LooksUpPalettesOf1And4And8Bits) {
  const std::string palette = entry(1, 2, 3) + entry(4, 5, 6);
  EXPECT_THAT(pixels(bmp({.bits = 1, .colors = 2, .after_header = palette}, 2, 1, "\x40\x00\x00\x00"s)),
              ElementsAre(3, 2, 1, 6, 5, 4));
  EXPECT_THAT(pixels(bmp({.bits = 4, .colors = 2, .after_header = palette}, 2, 1, "\x10\x00\x00\x00"s)),
              ElementsAre(6, 5, 4, 3, 2, 1));
  EXPECT_THAT(pixels(bmp({.bits = 8, .colors = 2, .after_header = palette}, 2, 1, "\x01\x00\x00\x00"s)),
              ElementsAre(6, 5, 4, 3, 2, 1));
}

TEST_F(Bmp, IsBlackBeyondThePaletteAndGreyBeyondAGreyRamp) {
  const std::string row = "\xc8\x00\x00\x00"s;
  const std::string colors = entry(1, 2, 3) + entry(4, 5, 6);
  EXPECT_THAT(pixels(bmp({.bits = 8, .colors = 2, .after_header = colors}, 1, 1, row)), ElementsAre(0, 0, 0));
  const std::string ramp = entry(0, 0, 0) + entry(1, 1, 1) + entry(2, 2, 2);
  EXPECT_THAT(pixels(bmp({.bits = 8, .colors = 3, .after_header = ramp}, 1, 1, row)),
              ElementsAre(200, 200, 200));
}

TEST_F(Bmp, Stretches16BitColours) {
  // 5 bits: 16 · 255 / 31 = 131, 1 · 255 / 31 = 8; 6 bits: 33 · 255 / 63 = 133.
  EXPECT_THAT(pixels(bmp({.bits = 16}, 2, 1, little_endian(0x4021, 2) + little_endian(0x7fff, 2))),
              ElementsAre(131, 8, 8, 255, 255, 255));
  const std::string masks = little_endian(0xf800, 4) + little_endian(0x7e0, 4) + little_endian(0x1f, 4);
  EXPECT_THAT(
      pixels(bmp({.bits = 16, .compression = 3, .after_header = masks}, 1, 1, little_endian(0x8421, 4))),
      ElementsAre(131, 133, 8));
}

TEST_F(Bmp, Drops32BitAlphaAndHonoursMasks) {
  EXPECT_THAT(pixels(bmp({.bits = 32}, 1, 1, "\x01\x02\x03\x04")), ElementsAre(3, 2, 1));
  const std::string masks =
      little_endian(0xff000000, 4) + little_endian(0xff0000, 4) + little_endian(0xff00, 4);
  EXPECT_THAT(pixels(bmp({.bits = 32, .compression = 3, .after_header = masks}, 1, 1, "\x01\x02\x03\x04")),
              ElementsAre(4, 3, 2));
}

TEST_F(Bmp, RefusesWhatPillowReadsOtherwise) {
  EXPECT_THAT(error_for(bmp({.bits = 8, .compression = 1}, 1, 1, "....")), HasSubstr("compressed (kind 1)"));
  EXPECT_THAT(error_for(bmp({.bits = 2}, 1, 1, "....")), HasSubstr("2 bits a pixel"));
  EXPECT_THAT(error_for(bmp({.bits = 8, .colors = 300}, 1, 1, "....")), HasSubstr("300 colours"));
  const std::string ramp = entry(0, 0, 0) + entry(1, 1, 1) + entry(2, 2, 2);
  EXPECT_THAT(error_for(bmp({.bits = 4, .colors = 3, .after_header = ramp}, 1, 1, "....")),
              HasSubstr("grey palette"));
  const std::string masks = little_endian(0xf0, 4) + little_endian(0x0f, 4) + little_endian(0xf00, 4);
  EXPECT_THAT(error_for(bmp({.bits = 16, .compression = 3, .after_header = masks}, 1, 1, "....")),
              HasSubstr("unusual layout"));
  std::string header = bmp({}, 1, 1, "....");
  header[14] = 41;
  EXPECT_THAT(error_for(header), HasSubstr("header of 41 bytes"));
}

TEST_F(Bmp, ReportsATruncatedFileWhereverItEnds) {
  for (const std::uint32_t bits : {1U, 4U, 8U, 16U, 24U, 32U}) {
    const std::string palette(bits <= 8 ? 4U << bits : 0U, '\x07');
    const std::string whole =
        bmp({.bits = bits, .after_header = palette}, 1, 3, std::string(9, 'x') + "....");
    ASSERT_NO_THROW(pixels(whole));
    for (std::size_t size = 2; size + 4 < whole.size(); ++size) {
      EXPECT_THAT(error_for(whole.substr(0, size)), HasSubstr("truncated"))
          << bits << " bits, " << size << " bytes";
    }
  }
}

TEST_F(Bmp, RefusesAbsurdSizesBeforeTakingMemory) {
  EXPECT_THAT(error_for(bmp({}, 0x7fffffff, 0x7fffffff, "....")),
              HasSubstr("2147483647 x 2147483647 pixels"));
  EXPECT_THAT(error_for(bmp({}, 0, 1, "....")), HasSubstr("expected 1 to 178956970"));
  EXPECT_THAT(error_for(bmp({.bits = 32}, 1U << 14, 1 << 13, "....")), HasSubstr("truncated"));
}

}  // namespace
}  // namespace clip_lora::image
