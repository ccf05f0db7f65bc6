#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "clip_lora/image/preprocess.hpp"
#include "support/decoding.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"
#include "support/png_builder.hpp"

namespace clip_lora::image {
namespace {

using namespace std::string_literals;
using clip_lora::testing::build_png;
using clip_lora::testing::formula_picture;
using clip_lora::testing::from_hex;
using clip_lora::testing::png_chunk;
using ::testing::ElementsAre;

constexpr auto kApply = Orientation::kApplyExif;
using Exif = clip_lora::testing::DecodingTest;

/// A TIFF of one directory entry: the orientation, of type short.
std::string big_endian_exif(int orientation) {
  return "MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"s + static_cast<char>(orientation) +
         "\0\0\0\0\0\0"s;
}

std::string little_endian_exif(int orientation) {
  return "II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"s + static_cast<char>(orientation) +
         "\0\0\0\0\0\0\0"s;
}

/// The rows 1 2 3 and 4 5 6.
std::string png_with(const std::string& chunk) {
  return build_png({.color_type = 0}, 2, 3, "\1\2\3\4\5\6"s, chunk);
}

/// The values of a grey picture, a string of digits per row.
std::vector<std::string> rows_of(const Image& picture) {
  std::vector<std::string> rows(static_cast<std::size_t>(picture.height));
  auto value = picture.rgb.begin();
  for (std::string& row : rows) {
    for (int x = 0; x < picture.width; ++x, value += 3) row += static_cast<char>('0' + *value);
  }
  return rows;
}

const std::vector<std::string> kStored = {"123", "456"};

/// What stands where, by the standard's words for each orientation: the visual place of row 0 and of column
/// 0.
const std::array<std::vector<std::string>, 8> kUpright = {{{"123", "456"},        // top, left
                                                           {"321", "654"},        // top, right
                                                           {"654", "321"},        // bottom, right
                                                           {"456", "123"},        // bottom, left
                                                           {"14", "25", "36"},    // left, top
                                                           {"41", "52", "63"},    // right, top
                                                           {"63", "52", "41"},    // right, bottom
                                                           {"36", "25", "14"}}};  // left, bottom

TEST_F(Exif, TurnsAllEightOrientationsInBothByteOrders) {
  for (int orientation = 1; orientation <= 8; ++orientation) {
    for (const auto& exif : {big_endian_exif(orientation), little_endian_exif(orientation)}) {
      const std::string png = png_with(png_chunk("eXIf", exif));
      EXPECT_EQ(rows_of(decoded(png, kApply)), kUpright[static_cast<std::size_t>(orientation) - 1])
          << orientation;
      EXPECT_EQ(rows_of(decoded(png)), kStored) << orientation;
    }
  }
}

TEST_F(Exif, IsReadFromTheFirstSegmentOfAJpeg) {
  const Image picture = formula_picture(21, 34);
  const cv::Mat mat(21, 34, CV_8UC3, const_cast<std::uint8_t*>(picture.rgb.data()));
  std::vector<unsigned char> bytes;
  cv::imencode(".jpg", mat, bytes);
  const std::string plain(bytes.begin(), bytes.end());
  const auto segment = [](const std::string& content) {
    return "\xff\xe1\0"s + static_cast<char>(content.size() + 2) + content;
  };
  const std::string jpeg = plain.substr(0, 2) + segment("http://ns.adobe.com/xap/1.0/\0<x/>"s) +
                           segment("Exif\0\0"s + big_endian_exif(6)) + plain.substr(2);
  const Image stored = decoded(jpeg);
  const Image upright = decoded(jpeg, kApply);
  EXPECT_EQ(stored.rgb, pixels(plain));
  ASSERT_EQ(upright.height, 34);
  ASSERT_EQ(upright.width, 21);
  for (int y = 0; y < 34; ++y) {
    for (int x = 0; x < 21; ++x) {
      EXPECT_EQ(upright.rgb[std::size_t{3} * (y * 21 + x)], stored.rgb[std::size_t{3} * ((20 - x) * 34 + y)])
          << y << ", " << x;
    }
  }
}

TEST_F(Exif, IsReadFromAWebp) {
  // Pillow 12.3 wrote it: 3 x 2 pixels of red 10, 40, 70 and 100, 130, 160, and orientation 6.
  const std::string webp = from_hex(
      "524946466400000057454250565038580a000000080000000200000100005650384c230000002f024000002f20164c2476"
      "e7ef99c4153cea31ffc91a6ada3660439d7f3935a2ff31bd00455849461a0000004d4d002a000000080001011200030000"
      "00010006000000000000");
  const Image upright = decoded(webp, kApply);
  EXPECT_EQ(upright.height, 3);
  EXPECT_EQ(upright.width, 2);
  EXPECT_THAT(upright.rgb,
              ElementsAre(100, 110, 120, 10, 20, 30, 130, 140, 150, 40, 50, 60, 160, 170, 180, 70, 80, 90));
  EXPECT_THAT(pixels(webp),
              ElementsAre(10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120, 130, 140, 150, 160, 170, 180));
}

TEST_F(Exif, IsObeyedByTheEvaluationViewIfThePreprocessingSaysSo) {
  const auto path = file_of(png_with(png_chunk("eXIf", big_endian_exif(6))));
  Preprocessing preprocessing{.size_px = 2,
                              .resize_px = 2};  // no resize; the margin of one pixel falls off at the end
  EXPECT_EQ(rows_of(load_evaluation_view(path, preprocessing)), (std::vector<std::string>{"12", "45"}));
  preprocessing.orientation = kApply;
  EXPECT_EQ(rows_of(load_evaluation_view(path, preprocessing)), (std::vector<std::string>{"41", "52"}));
}

TEST_F(Exif, MayBeALongNumberOrStandBehindOtherEntriesAndAPrefix) {
  const std::string make =
      "\x01\x0f\0\x02\0\0\0\x04"
      "abc\0"s;
  const std::string orientation = "\x01\x12\0\x04\0\0\0\x01\0\0\0\x02"s;
  const std::string exif = "Exif\0\0MM\0*\0\0\0\x0a..\0\x02"s + make + orientation;
  EXPECT_EQ(rows_of(decoded(png_with(png_chunk("eXIf", exif)), kApply)), kUpright[1]);
}

TEST_F(Exif, CountsAsNoneWhereItIsBrokenOrAbsurd) {
  const std::string good = big_endian_exif(6);
  std::vector<std::string> blocks = {""s,
                                     "Exif\0\0"s,
                                     "JFIF\0"s,
                                     big_endian_exif(0),
                                     big_endian_exif(9),
                                     "MM*\0"s + good.substr(4),
                                     "II*\0"s + good.substr(4)};
  const auto with = [&](std::size_t offset, const std::string& bytes) {
    return good.substr(0, offset) + bytes + good.substr(offset + bytes.size());
  };
  blocks.push_back(with(4, "\xff\xff\xff\xff"));  // where the directory starts
  blocks.push_back(with(4, "\0\0\0\x20"s));
  blocks.push_back(with(8, "\0\0"s));      // no entry
  blocks.push_back(with(10, "\x01\x13"));  // another tag
  blocks.push_back(with(12, "\0\x02"s));   // text
  blocks.push_back(with(18, "\xff\xff"));  // orientation 65535
  for (std::size_t size = 0; size < 22; ++size) blocks.push_back(good.substr(0, size));
  for (const std::string& block : blocks) {
    EXPECT_EQ(rows_of(decoded(png_with(png_chunk("eXIf", block)), kApply)), kStored)
        << ::testing::PrintToString(block);
  }
  std::string wrong_checksum = png_chunk("eXIf", good);
  wrong_checksum.back() = static_cast<char>(wrong_checksum.back() ^ 1);
  EXPECT_EQ(rows_of(decoded(png_with(wrong_checksum), kApply)), kStored);
  const std::string many_entries = with(8, "\xff\xff");  // of which the block has one
  EXPECT_EQ(rows_of(decoded(png_with(png_chunk("eXIf", many_entries)), kApply)), kUpright[5]);
}

}  // namespace
}  // namespace clip_lora::image
