#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "support/decoding.hpp"
#include "support/files.hpp"

namespace clip_lora::image {
namespace {

using namespace std::string_literals;
using clip_lora::testing::from_hex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two GIFs that Pillow 12.3 wrote: 20 x 17 pixels of the palette indices (x / 3 + y / 5) mod 4, with long LZW
// codes.
constexpr auto kPlain =
    "47494638376114001100810000ff000000ff000000ff0a141e2c00000000140011000008630001080c405080c1010805"
    "022018c0a042860605201cf0b0a0808a0d0f261c681163c4891e2f72cc2871e3428b1035521cf97140ca922b4f9244f8"
    "12244b8d354de6cc193367cb9e16610afc19522800a2378d22958974294f813699aaac18f529c780003b";
constexpr auto kInterlaced =
    "47494638376114001100810000ff000000ff000000ff0a141e2c00000000140011004008670001080c405080c1010805"
    "022018c020438302100e50f8f0a0c489030b5ac4b83000458d1113666c083124c78a26158e8428f12349942d575a6429"
    "b223c99400689e0419d3a54e9f0280e2b4e990674d980390eebc8950a950843f65e28c4a74a3c09e4e330604003b";
constexpr std::array<std::array<std::uint8_t, 3>, 4> kPalette = {
    {{255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {10, 20, 30}}};

using Gif = clip_lora::testing::DecodingTest;

std::vector<std::uint8_t> expected_pixels() {
  std::vector<std::uint8_t> pixels;
  for (int y = 0; y < 17; ++y) {
    for (int x = 0; x < 20; ++x) {
      const auto& color = kPalette[static_cast<std::size_t>((x / 3 + y / 5) % 4)];
      pixels.insert(pixels.end(), color.begin(), color.end());
    }
  }
  return pixels;
}

/// A GIF of one pixel of palette index 1 at (left 1, top 0) of a 2 x 1 screen, with a global palette of two
/// colours.
std::string one_pixel_gif(const std::string& before_the_frame = "") {
  const std::string screen = "GIF89a\x02\x00\x01\x00\x80\x00\x00"s;
  const std::string palette = "\x0a\x14\x1e\x28\x32\x3c"s;
  const std::string frame = ",\x01\x00\x00\x00\x01\x00\x01\x00\x00"s;
  const std::string codes = "\x02\x02\x4c\x01\x00;"s;  // clear, 1, end: 4, 1, 5 of three bits each
  return screen + palette + before_the_frame + frame + codes;
}

TEST_F(Gif, DecodesPlainAndInterlacedRows) {
  for (const auto* hex : {kPlain, kInterlaced}) {
    const Image picture = decoded(from_hex(hex));
    EXPECT_EQ(picture.height, 17);
    EXPECT_EQ(picture.width, 20);
    EXPECT_EQ(picture.rgb, expected_pixels());
  }
}

TEST_F(Gif, FillsTheScreenAroundASmallFrameWithEntry0) {
  EXPECT_THAT(decoded(one_pixel_gif()).rgb, ElementsAre(10, 20, 30, 40, 50, 60));
}

TEST_F(Gif, FillsItWithTheTransparentColourWhereThereIsOne) {
  const std::string comment = "!\xfe\x03hi!\x00"s;
  const std::string transparent_1 = "!\xf9\x04\x01\x00\x00\x01\x00"s;
  EXPECT_THAT(decoded(one_pixel_gif(comment + transparent_1)).rgb, ElementsAre(40, 50, 60, 40, 50, 60));
}

TEST_F(Gif, ShowsTheFirstFrameOfAnAnimation) {
  const std::string one = one_pixel_gif();
  const std::string second_frame = ",\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x4c\x01\x00;"s;
  EXPECT_EQ(decoded(one.substr(0, one.size() - 1) + second_frame).rgb, decoded(one).rgb);
}

TEST_F(Gif, ReportsATruncatedFileWhereverItEnds) {
  for (const std::string& whole : {from_hex(kPlain), one_pixel_gif()}) {
    for (std::size_t size = 6; size + 1 < whole.size();
         ++size) {  // the trailer after the first frame may be missing
      EXPECT_THAT(error_for(whole.substr(0, size)), HasSubstr("truncated")) << size << " bytes";
    }
  }
}

TEST_F(Gif, ReportsAFrameThatEndsTooEarlyAndAMissingOne) {
  std::string gif = one_pixel_gif();
  const std::size_t codes = gif.size() - 4;
  gif[codes] = '\x2c';  // clear, end
  EXPECT_THAT(error_for(gif), HasSubstr("EOF detected before image complete"));
  EXPECT_THAT(error_for("GIF89a\x02\x00\x01\x00\x00\x00\x00;"s), HasSubstr("no frame"));
}

TEST_F(Gif, SurvivesAnyDamagedByte) {
  const std::string whole = from_hex(kInterlaced);
  for (std::size_t i = 10; i < whole.size(); ++i) {  // the screen's size, before that, would only cost memory
    for (const int flipped : {0x01, 0x55, 0xff}) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ flipped);
      try {
        decoded(damaged);
      } catch (const DataError&) {  // as good an outcome as a picture
      }
    }
  }
}

}  // namespace
}  // namespace clip_lora::image
