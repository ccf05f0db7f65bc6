#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip_lora/image/resample.hpp"
#include "image/row_filters.hpp"
#include "support/pictures.hpp"

namespace clip_lora::image {
namespace {

using enum Interpolation;
using clip_lora::testing::crc32;
using clip_lora::testing::formula_picture;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

constexpr Interpolation kAllFilters[] = {kNearest, kBox, kBilinear, kHamming, kBicubic, kLanczos};

struct Case {
  int height;
  int width;
  int new_height;
  int new_width;
  std::uint32_t checksum;  // of the bytes that Pillow 12.3 makes of the same picture
};

class ResizeAsPillow : public ::testing::TestWithParam<Case> {};

TEST_P(ResizeAsPillow, EveryByteIsEqual) {
  const Case& c = GetParam();
  for (const bool with_avx2 : {true, false}) {
    allow_avx2(with_avx2);
    const Image resized = resize(formula_picture(c.height, c.width), c.new_height, c.new_width, kBicubic);
    EXPECT_EQ(resized.height, c.new_height);
    EXPECT_EQ(resized.width, c.new_width);
    EXPECT_EQ(crc32(resized.rgb), c.checksum) << (with_avx2 ? "with" : "without") << " AVX2";
  }
  allow_avx2(true);
}

INSTANTIATE_TEST_SUITE_P(UpDownAndExtremes, ResizeAsPillow,
                         ::testing::Values(Case{1, 1, 3, 2, 0x33737e78}, Case{5, 7, 3, 4, 0xc66b5786},
                                           Case{4, 4, 9, 6, 0x4a740a42}, Case{64, 48, 224, 100, 0x9a6d349b},
                                           Case{200, 301, 17, 23, 0x62d55a5f},
                                           Case{1, 50, 8, 8, 0x761ae40f}));

INSTANTIATE_TEST_SUITE_P(OneAxisUnchanged, ResizeAsPillow,
                         ::testing::Values(Case{90, 120, 90, 31, 0xa0a83967},
                                           Case{90, 120, 31, 120, 0x2059c6c5}));

// From just over a hundred times as tall as wide, Pillow shrinks the height first.
INSTANTIATE_TEST_SUITE_P(TallStrips, ResizeAsPillow,
                         ::testing::Values(Case{301, 3, 20, 5, 0x699dfbae}, Case{300, 3, 20, 5, 0xb7b1ee77},
                                           Case{301, 3, 302, 5, 0xbcffd203}));

TEST(Resize, EqualsPillowValueByValue) {
  EXPECT_THAT(
      resize(formula_picture(5, 7), 3, 4, kBicubic).rgb,
      ElementsAre(56, 113, 163, 127, 143, 139, 113, 140, 167, 151, 125, 110, 150, 137, 113, 117, 126, 135,
                  130, 135, 143, 146, 127, 123, 99, 147, 136, 159, 133, 127, 143, 144, 134, 161, 128, 117));
}

TEST(Resize, KeepsAPlainColour) {
  const Image plain{9, 13, std::vector<std::uint8_t>(std::size_t{9} * 13 * 3, 201)};
  EXPECT_EQ(resize(plain, 4, 31, kBicubic).rgb, std::vector<std::uint8_t>(std::size_t{4} * 31 * 3, 201));
}

TEST(Resize, ToTheSameSizeChangesNothing) {
  const Image picture = formula_picture(6, 11);
  for (const Interpolation filter : kAllFilters) {
    EXPECT_EQ(resize(picture, 6, 11, filter).rgb, picture.rgb);
    EXPECT_EQ(resize(picture, {6, 11, 0, 0, 6, 11}, filter).rgb, picture.rgb);
  }
}

class ResizeOfAWindow : public ::testing::TestWithParam<Interpolation> {};

TEST_P(ResizeOfAWindow, IsThatPartOfTheWhole) {
  for (const auto& [height, width] :
       {std::pair{30, 47}, std::pair{420, 4}}) {  // the second shrinks the height first
    const Image picture = formula_picture(height, width);
    const Image whole = resize(picture, 25, 60, GetParam());
    for (const Box& box : {Box{0, 0, 25, 60}, Box{3, 7, 11, 20}, Box{24, 59, 1, 1}}) {
      const Image part = resize(picture, {25, 60, box.top, box.left, box.height, box.width}, GetParam());
      EXPECT_THAT(part.rgb, ElementsAreArray(crop(whole, box).rgb));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Filters, ResizeOfAWindow, ::testing::ValuesIn(kAllFilters));

class ResizeOfABox : public ::testing::TestWithParam<Interpolation> {};

TEST_P(ResizeOfABox, SeesNothingOfThePixelsAroundIt) {
  const Image picture = formula_picture(60, 83);
  for (const Box& box : {Box{0, 0, 60, 83}, Box{7, 5, 31, 40}, Box{29, 42, 31, 41}, Box{59, 80, 1, 3}}) {
    for (const auto& [height, width] : {std::pair{9, 13}, std::pair{31, 40}, std::pair{64, 100}}) {
      EXPECT_THAT(resize(picture, box, height, width, GetParam()).rgb,
                  ElementsAreArray(resize(crop(picture, box), height, width, GetParam()).rgb));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Filters, ResizeOfABox, ::testing::ValuesIn(kAllFilters));

struct FilterCase {
  Interpolation interpolation;
  std::uint32_t smaller;  // checksums of the bytes that Pillow 12.3 makes: 200 x 301 to 17 x 23,
  std::uint32_t larger;   // 5 x 7 to 31 x 20,
  std::uint32_t strip;    // and 301 x 3 to 20 x 5 pixels, height first
};

class FilterAsPillow : public ::testing::TestWithParam<FilterCase> {};

TEST_P(FilterAsPillow, EveryByteIsEqual) {
  const FilterCase& c = GetParam();
  EXPECT_EQ(crc32(resize(formula_picture(200, 301), 17, 23, c.interpolation).rgb), c.smaller);
  EXPECT_EQ(crc32(resize(formula_picture(5, 7), 31, 20, c.interpolation).rgb), c.larger);
  EXPECT_EQ(crc32(resize(formula_picture(301, 3), 20, 5, c.interpolation).rgb), c.strip);
}

INSTANTIATE_TEST_SUITE_P(Filters, FilterAsPillow,
                         ::testing::Values(FilterCase{kNearest, 0x73c2fc5d, 0x47cd698b, 0x67dee24d},
                                           FilterCase{kBox, 0xe89aa68d, 0x47cd698b, 0xffe6ae24},
                                           FilterCase{kBilinear, 0xd72873b4, 0xd1493e58, 0x8ed04591},
                                           FilterCase{kHamming, 0x02fec121, 0x449f3ea7, 0x761d39f6},
                                           FilterCase{kBicubic, 0x62d55a5f, 0xdf963e57, 0x699dfbae},
                                           FilterCase{kLanczos, 0x54dc3f0f, 0x748e94f3, 0xb72d37a5}));

TEST(Crop, TakesTheRectangle) {
  const Image picture{2, 3, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17}};
  const Image part = crop(picture, {.top = 1, .left = 1, .height = 1, .width = 2});
  EXPECT_EQ(part.height, 1);
  EXPECT_EQ(part.width, 2);
  EXPECT_THAT(part.rgb, ElementsAre(12, 13, 14, 15, 16, 17));
}

TEST(Flip, MirrorsLeftAndRightAndKeepsTheChannels) {
  const Image picture{2, 2, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}};
  EXPECT_THAT(flip_horizontally(picture).rgb, ElementsAre(3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8));
}

}  // namespace
}  // namespace clip_lora::image
