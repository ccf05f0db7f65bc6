#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <opencv2/imgcodecs.hpp>
#include <string>
#include <vector>

#include "support/decoding.hpp"
#include "support/files.hpp"
#include "support/png_builder.hpp"

namespace clip_lora::image {
namespace {

using namespace std::string_literals;
using clip_lora::testing::build_png;
using clip_lora::testing::from_hex;
using clip_lora::testing::message_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

class ReadImageSize : public clip_lora::testing::DecodingTest {
 protected:
  /// "height x width".
  std::string size_of(const std::string& bytes) const {
    const ImageSize size = read_image_size(file_of(bytes));
    return std::to_string(size.height) + " x " + std::to_string(size.width);
  }

  std::string size_error_for(const std::string& bytes) const {
    return message_of<DataError>([&] { size_of(bytes); });
  }
};

std::string jpeg(int height, int width, int progressive = 0) {
  std::vector<unsigned char> bytes;
  cv::imencode(".jpg", cv::Mat(height, width, CV_8UC3, cv::Scalar(1, 2, 3)), bytes,
               {cv::IMWRITE_JPEG_PROGRESSIVE, progressive});
  return {bytes.begin(), bytes.end()};
}

/// The file up to the picture data.
std::string headers_of(const std::string& jpeg) { return jpeg.substr(0, jpeg.find("\xff\xda"s)); }

// Files of 3 x 2 pixels (width x height) that Pillow 12.3 wrote: lossy, lossless, and an extended one.
constexpr auto kWebp =
    "52494646300000005745425056503820"
    "24000000b001009d012a0300020002c04c25940274010efe02ec00f6bdf44135d8c67ced93788000";
constexpr auto kLosslessWebp =
    "5249464630000000574542505650384c230000002f024000002f20164c2476e7ef99c4153cea31ffc91a6ada3660439d7f39"
    "35a2ff31bd00";
constexpr auto kExtendedWebp =
    "524946466400000057454250565038580a000000080000000200000100005650384c230000002f024000002f20164c2476e7"
    "ef99c4153cea31ffc91a6ada3660439d7f3935a2ff31bd00455849461a0000004d4d002a0000000800010112000300000001"
    "0006000000000000";
/// The start of one that Pillow wrote of two frames.
constexpr auto kAnimatedWebp =
    "52494646f200000057454250565038580a00000002000000020000010000414e494d060000000000";
/// A header of 40 bytes: 3 x −2 pixels of 24 bits, rows from the top.
constexpr auto kBmp =
    "424d000000000000000036000000"
    "28000000"
    "03000000"
    "feffffff"
    "01001800"
    "00000000"
    "00000000"
    "00000000"
    "00000000"
    "00000000"
    "00000000";
/// A screen of 2 x 1 pixels, and on it, at (left 1, top 0), the description of a frame of 2 x 2.
constexpr auto kGif =
    "474946383961"
    "0200010080"
    "0000"
    "0a141e28323c"
    "2c0100000002000200"
    "00"
    "02024c0100"
    "3b";

TEST_F(ReadImageSize, KnowsEveryKind) {
  EXPECT_EQ(size_of(jpeg(61, 83)), "61 x 83");
  EXPECT_EQ(size_of(jpeg(61, 83, 1)), "61 x 83");
  EXPECT_EQ(size_of(build_png({}, 1, 2, "\1\2\3\4\5\6")), "1 x 2");
  for (const auto* hex : {kWebp, kLosslessWebp, kExtendedWebp, kBmp})
    EXPECT_EQ(size_of(from_hex(hex)), "2 x 3");
  EXPECT_EQ(size_of(from_hex(kGif)), "2 x 3");
}

TEST_F(ReadImageSize, NeedsNoPixels) {
  EXPECT_EQ(size_of(headers_of(jpeg(61, 83))), "61 x 83");
  EXPECT_EQ(size_of(build_png({}, 1, 2, "\1\2\3\4\5\6").substr(0, 33)), "1 x 2");
  EXPECT_EQ(size_of(from_hex(kWebp).substr(0, 30)), "2 x 3");
  EXPECT_EQ(size_of(from_hex(kLosslessWebp).substr(0, 25)), "2 x 3");
  EXPECT_EQ(size_of(from_hex(kExtendedWebp).substr(0, 30)), "2 x 3");
  EXPECT_EQ(size_of(from_hex(kGif).substr(0, 30)), "2 x 3");
}

TEST_F(ReadImageSize, StepsOverLongSegmentsBeforeTheHeader) {
  const std::string plain = headers_of(jpeg(61, 83));
  const std::string segment = "\xff\xe2\xff\xff"s + std::string(65533, 'x');
  for (const std::size_t count : {1U, 10U}) {
    std::string long_one = plain.substr(0, 2);
    for (std::size_t i = 0; i < count; ++i) long_one += segment;
    EXPECT_EQ(size_of(long_one + plain.substr(2)), "61 x 83") << count;
  }
}

TEST_F(ReadImageSize, ReportsAHeaderThatIsCutShort) {
  for (const std::string& whole :
       {headers_of(jpeg(61, 83)).substr(0, 20), build_png({}, 1, 1, "\1\2\3").substr(0, 33),
        from_hex(kWebp).substr(0, 30), from_hex(kLosslessWebp).substr(0, 25),
        from_hex(kExtendedWebp).substr(0, 30), from_hex(kBmp), from_hex(kGif).substr(0, 30)}) {
    for (std::size_t size = 12; size < whole.size(); ++size) {
      EXPECT_THAT(size_error_for(whole.substr(0, size)), HasSubstr("truncated")) << size << " bytes";
    }
  }
}

TEST_F(ReadImageSize, RefusesWhatTheDecoderRefuses) {
  EXPECT_THAT(size_error_for(from_hex(kAnimatedWebp)), HasSubstr("animated WebP"));
  EXPECT_THAT(size_error_for("RIFF....WEBPVP9 ................"), HasSubstr("broken WebP"));
  EXPECT_THAT(size_error_for("II*\0...."s), HasSubstr("TIFF"));
  EXPECT_THAT(size_error_for("\xff\xd8\xff\xd9"), HasSubstr("no picture data"));
  EXPECT_THAT(size_error_for(build_png({}, 1, 1U << 31, "")), HasSubstr("2147483648 x 1 pixels"));
  EXPECT_THAT(size_error_for("<html>"),
              AllOf(HasSubstr((folder_ / "picture.jpg").string()), HasSubstr("no image")));
  EXPECT_THAT(size_error_for(""), HasSubstr("the file is empty"));
  EXPECT_THAT(message_of<DataError>([&] { read_image_size(folder_ / "absent.jpg"); }),
              AllOf(HasSubstr("absent.jpg"), HasSubstr("No such file")));
}

}  // namespace
}  // namespace clip_lora::image
