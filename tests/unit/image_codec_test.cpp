#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <opencv2/imgcodecs.hpp>
#include <thread>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/decoding.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"
#include "support/png_builder.hpp"
#include "support/throws.hpp"

namespace clip_lora::image {
namespace {

using namespace std::string_literals;
using clip_lora::testing::build_png;
using clip_lora::testing::formula_picture;
using clip_lora::testing::message_of;
using clip_lora::testing::png_chunk;
using clip_lora::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Codec = clip_lora::testing::DecodingTest;

std::string encoded(const std::string& extension, const cv::Mat& picture,
                    const std::vector<int>& parameters = {}) {
  std::vector<unsigned char> bytes;
  cv::imencode(extension, picture, bytes, parameters);
  return {bytes.begin(), bytes.end()};
}

cv::Mat gradient(int height, int width) {
  cv::Mat picture(height, width, CV_8UC3);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      picture.at<cv::Vec3b>(y, x) = {static_cast<unsigned char>(x), static_cast<unsigned char>(y),
                                     static_cast<unsigned char>(x + y)};
    }
  }
  return picture;
}

std::string jpeg(const std::vector<int>& parameters = {}) {
  return encoded(".jpg", gradient(61, 83), parameters);
}

TEST_F(Codec, WritesPngThatReadsBackUnchanged) {
  const Image picture = formula_picture(23, 31);
  write_png(folder_ / "new folder" / "picture.png", picture);
  const Image again = decode_image(folder_ / "new folder" / "picture.png");
  EXPECT_EQ(again.height, 23);
  EXPECT_EQ(again.width, 31);
  EXPECT_EQ(again.rgb, picture.rgb);
}

TEST_F(Codec, EncodesJpegThatReadsBackAlike) {
  Image picture{48, 64, {}};
  for (int y = 0; y < picture.height; ++y) {
    for (int x = 0; x < picture.width; ++x)
      picture.rgb.insert(picture.rgb.end(),
                         {static_cast<std::uint8_t>(4 * x), static_cast<std::uint8_t>(4 * y), 90});
  }
  const auto bytes = encode_jpeg(picture, 90);
  EXPECT_LT(bytes.size(), picture.rgb.size() / 4);
  write_bytes(folder_ / "picture.jpg", {bytes.begin(), bytes.end()});
  const Image again = decode_image(folder_ / "picture.jpg");
  ASSERT_EQ(again.rgb.size(), picture.rgb.size());
  for (std::size_t i = 0; i < picture.rgb.size(); ++i)
    ASSERT_NEAR(again.rgb[i], picture.rgb[i], 24) << "what colours at half the resolution may lose";
}

TEST_F(Codec, RefusesToWriteWhereItCannot) {
  write_bytes(folder_ / "file", "x");
  EXPECT_THROW(write_png(folder_ / "file" / "picture.png", formula_picture(2, 2)), ConfigError);
}

TEST_F(Codec, DropsAlphaWithoutBlending) {
  EXPECT_THAT(pixels(build_png({.color_type = 6}, 1, 2, "\x0a\x14\x1e\x00\x28\x32\x3c\x80"s)),
              ElementsAre(10, 20, 30, 40, 50, 60));
  EXPECT_THAT(pixels(build_png({.color_type = 4}, 1, 2, "\x0a\x00\x14\xff"s)),
              ElementsAre(10, 10, 10, 20, 20, 20));
}

TEST_F(Codec, ExpandsGreyAndPalettes) {
  EXPECT_THAT(pixels(build_png({.color_type = 0, .bit_depth = 2}, 1, 4, "\x1b")),
              ElementsAre(0, 0, 0, 85, 85, 85, 170, 170, 170, 255, 255, 255));
  const std::string palette = png_chunk("PLTE", "\x01\x02\x03\x04\x05\x06");
  const std::string transparency = png_chunk("tRNS", "\x00\x80"s);
  EXPECT_THAT(pixels(build_png({.color_type = 3}, 1, 2, "\x01\x00"s, palette)),
              ElementsAre(4, 5, 6, 1, 2, 3));
  EXPECT_THAT(pixels(build_png({.color_type = 3}, 1, 2, "\x01\x00"s, palette + transparency)),
              ElementsAre(4, 5, 6, 1, 2, 3));
}

TEST_F(Codec, KeepsTheHighByteOf16BitColoursAndClips16BitGreyAsPillowDoes) {
  EXPECT_THAT(pixels(build_png({.color_type = 2, .bit_depth = 16}, 1, 1, "\x01\xff\x80\x00\xff\x01"s)),
              ElementsAre(1, 128, 255));
  EXPECT_THAT(
      pixels(build_png({.color_type = 6, .bit_depth = 16}, 1, 1, "\x01\xff\x80\x00\xff\x01\x00\x00"s)),
      ElementsAre(1, 128, 255));
  EXPECT_THAT(pixels(build_png({.color_type = 0, .bit_depth = 16}, 1, 2, "\x00\x7f\x01\x00"s)),
              ElementsAre(127, 127, 127, 255, 255, 255));
}

TEST_F(Codec, IgnoresGammaAndAnimationOfAPng) {
  const std::string gamma = png_chunk("gAMA", std::string("\x00\x01\x86\xa0", 4));
  const std::string animation = png_chunk("acTL", std::string("\0\0\0\2\0\0\0\0", 8));
  EXPECT_THAT(pixels(build_png({}, 1, 1, "\x0a\x14\x1e", gamma + animation)), ElementsAre(10, 20, 30));
}

TEST_F(Codec, GoesByTheContentWhateverTheName) {
  write_bytes(folder_ / "picture.png", jpeg());
  EXPECT_EQ(decode_image(folder_ / "picture.png").rgb, pixels(jpeg()));
}

TEST_F(Codec, IgnoresExifOrientation) {
  const std::string plain = jpeg();
  // An APP1 segment: big-endian TIFF with one directory entry, orientation (0x112, short, 1 value) = 6.
  const std::string exif = "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"s;
  const std::string segment = "\xff\xe1\0"s + static_cast<char>(exif.size() + 2) + exif;
  EXPECT_EQ(pixels(plain.substr(0, 2) + segment + plain.substr(2)), pixels(plain));
}

TEST_F(Codec, StepsOverAThumbnailWithItsOwnEndOfImageMarker) {
  const std::string plain = jpeg();
  const std::string thumbnail = encoded(".jpg", gradient(2, 2));
  const std::string segment = "\xff\xe1"s + static_cast<char>((thumbnail.size() + 2) >> 8) +
                              static_cast<char>((thumbnail.size() + 2) & 0xff);
  const std::string with_thumbnail = plain.substr(0, 2) + segment + thumbnail + plain.substr(2);
  EXPECT_EQ(pixels(with_thumbnail), pixels(plain));
  EXPECT_THAT(error_for(with_thumbnail.substr(0, with_thumbnail.size() * 3 / 4)), HasSubstr("truncated"));
}

TEST_F(Codec, ReportsATruncatedJpegWhereverItEnds) {
  for (const int progressive : {0, 1}) {
    const std::string whole = jpeg({cv::IMWRITE_JPEG_PROGRESSIVE, progressive});
    ASSERT_NO_THROW(pixels(whole));
    for (std::size_t part = 1; part < 16; ++part) {
      EXPECT_THAT(error_for(whole.substr(0, whole.size() * part / 16)), HasSubstr("truncated"))
          << part << "/16";
    }
    EXPECT_THAT(error_for(whole.substr(0, whole.size() - 1)), HasSubstr("truncated"));
  }
}

TEST_F(Codec, ReportsATruncatedPngWhereverItEnds) {
  const std::string whole = encoded(".png", gradient(61, 83));
  ASSERT_NO_THROW(pixels(whole));
  for (std::size_t part = 1; part < 16; ++part) {
    EXPECT_THAT(error_for(whole.substr(0, whole.size() * part / 16)), HasSubstr("truncated"))
        << part << "/16";
  }
  EXPECT_THAT(error_for(whole.substr(0, whole.size() - 1)), HasSubstr("truncated"));
}

TEST_F(Codec, TakesBytesBehindTheEndOfAPicture) {
  EXPECT_EQ(pixels(jpeg() + "trailing bytes"), pixels(jpeg()));
  const std::string png = encoded(".png", gradient(5, 6));
  EXPECT_EQ(pixels(png + "trailing bytes"), pixels(png));
}

TEST_F(Codec, RefusesAJpegThatIsDamagedBehindWhatALibraryStepsOver) {
  const std::string whole = jpeg();
  const std::size_t table = whole.find("\xff\xc4"s);
  ASSERT_NE(table, std::string::npos);
  std::string damaged = whole;
  damaged.replace(table + 5, 4, "\xff\xff\xff\xff"s);  // more codes than there are
  EXPECT_THAT(error_for(damaged), HasSubstr("its data are damaged"));
  // Bytes between two segments are stepped over, with a warning.
  const std::size_t quantisation = whole.find("\xff\xdb"s);
  std::string spaced = whole;
  EXPECT_EQ(pixels(spaced.insert(quantisation, "\0\0\0"s)), pixels(whole));
  EXPECT_THAT(error_for(damaged.insert(quantisation, "\0\0\0"s)), HasSubstr("its data are damaged"));
}

TEST_F(Codec, SurvivesAnyDamagedByte) {  // and prints nothing: the libraries' own messages are off
  ::testing::internal::CaptureStderr();
  for (const std::string& whole :
       {jpeg(), jpeg({cv::IMWRITE_JPEG_PROGRESSIVE, 1}), encoded(".png", gradient(61, 83))}) {
    for (std::size_t i = 0; i < whole.size(); i += 7) {
      std::string damaged = whole;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x55);
      try {
        pixels(damaged);
      } catch (const DataError&) {  // as good an outcome as a picture
      }
    }
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(Codec, LeavesTheStandardErrorsOfOtherThreadsAlone) {
  const std::string bytes = jpeg();
  write_bytes(folder_ / "picture.jpg", bytes);
  ::testing::internal::CaptureStderr();
  std::atomic<bool> done{false};
  std::thread decoding([&] {
    while (!done) decode_image(folder_ / "picture.jpg");
  });
  for (int i = 0; i < 500; ++i) std::fputs("x", stderr);
  done = true;
  decoding.join();
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), std::string(500, 'x'));
}

TEST_F(Codec, NamesTheFileAndTheReason) {
  const std::string path = (folder_ / "picture.jpg").string();
  EXPECT_THAT(error_for(""), AllOf(HasSubstr("image '" + path + "'"), HasSubstr("the file is empty")));
  EXPECT_THAT(error_for("<html>not found</html>"), AllOf(HasSubstr(path), HasSubstr("no image")));
  EXPECT_THAT(error_for("II*\0...."s), AllOf(HasSubstr(path), HasSubstr("TIFF"), HasSubstr("hint")));
  EXPECT_THAT(message_of<DataError>([&] { decode_image(folder_ / "absent.jpg"); }),
              AllOf(HasSubstr((folder_ / "absent.jpg").string()), HasSubstr("No such file")));
  EXPECT_THAT(message_of<DataError>([&] { decode_image(folder_.path()); }), HasSubstr("it is a folder"));
}

TEST_F(Codec, RefusesAPipeWithoutWaitingForItsOtherEnd) {
  const auto path = folder_ / "pipe.jpg";
  const auto link = folder_ / "link.jpg";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  std::filesystem::create_symlink(path, link);
  for (const auto& refused : {path, link, std::filesystem::path("/dev/null")}) {
    const auto expected = AllOf(HasSubstr(refused.string()), HasSubstr("expected a regular file"));
    EXPECT_THAT(message_of<DataError>([&] { decode_image(refused); }), expected);
    EXPECT_THAT(message_of<DataError>([&] { read_image_size(refused); }), expected);
  }
}

TEST_F(Codec, RefusesAHugeFileBeforeItReadsIt) {
  const std::uintmax_t huge = std::uintmax_t{1} << 40;  // none of it on the disk, and more than any memory
  const auto expect_refused = [&](const std::string& start, const std::string& message) {
    const auto path = file_of(start);
    std::filesystem::resize_file(path, huge);
    EXPECT_THAT(message_of<DataError>([&] { decode_image(path); }), HasSubstr(message));
    EXPECT_THAT(message_of<DataError>([&] { read_image_size(path); }), HasSubstr(message));
  };
  expect_refused("", "no image");
  expect_refused("II*\0"s, "TIFF");
  expect_refused(jpeg(), "has 1099511627776 bytes, expected at most 1073741824");
}

TEST_F(Codec, RefusesAProgressiveJpegWithoutItsLastScans) {
  const std::string whole = jpeg({cv::IMWRITE_JPEG_PROGRESSIVE, 1});
  std::vector<std::size_t> scans;
  for (std::size_t at = whole.find("\xff\xda"s); at != std::string::npos;
       at = whole.find("\xff\xda"s, at + 2)) {
    scans.push_back(at);
  }
  ASSERT_GT(scans.size(), 2U);
  for (std::size_t kept = 1; kept < scans.size(); ++kept) {
    EXPECT_THAT(error_for(whole.substr(0, scans[kept]) + "\xff\xd9"),
                HasSubstr("incomplete progressive JPEG"))
        << kept << " scans";
  }
}

TEST_F(Codec, RefusesJpegsOfOtherThanOneThreeOrFourComponents) {
  std::string bytes = jpeg();
  const std::size_t frame = bytes.find("\xff\xc0"s);
  ASSERT_NE(frame, std::string::npos);
  bytes[frame + 9] = 2;
  EXPECT_THAT(error_for(bytes), HasSubstr("2 colour components, expected 1, 3 or 4"));
}

TEST_F(Codec, RefusesAWrongChecksumAndAnUnknownCriticalChunk) {
  std::string png = build_png({}, 1, 1, "\x0a\x14\x1e");
  EXPECT_THAT(error_for(build_png({}, 1, 1, "\x0a\x14\x1e", png_chunk("ABCD", "x"))), HasSubstr("'ABCD'"));
  png[png.find("IDAT") + 6] ^= 1;
  EXPECT_THAT(error_for(png), AllOf(HasSubstr("checksum"), HasSubstr("'IDAT'")));
}

TEST_F(Codec, RefusesMorePixelsThanOpenCvTakes) {
  EXPECT_THAT(error_for(build_png({}, 1, 1U << 31, "")), HasSubstr("2147483648 x 1 pixels"));
  std::string bytes = jpeg();
  const std::size_t frame = bytes.find("\xff\xc0"s);
  bytes.replace(frame + 5, 4, "\xff\xff\xff\xff");
  EXPECT_THAT(error_for(bytes), HasSubstr("65535 x 65535 pixels, expected 1 to 178956970"));
}

TEST_F(Codec, RefusesALargePictureInAFewBytes) {
  std::string photo = jpeg();
  photo.replace(photo.find("\xff\xc0"s) + 5, 4, "\x33\0\x33\0"s);
  EXPECT_THAT(error_for(photo), HasSubstr("13056 x 13056 pixels by its header, but the file only"));
  std::string drawing = build_png({.color_type = 0}, 1, 1, "x");
  drawing.replace(12, 21, png_chunk("IHDR", "\0\0\x33\0\0\0\x33\0\x08\0\0\0\0"s).substr(4));
  EXPECT_THAT(error_for(drawing), HasSubstr("13056 x 13056 pixels by its header, but the file only"));
  const std::string screen = "GIF89a\0\x33\0\x33\x80\0\0\x0a\x14\x1e\x28\x32\x3c"s;
  EXPECT_THAT(error_for(screen + ",\x01\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;"s),
              HasSubstr("13056 x 13056 pixels by its header, but the file only"));
}

TEST_F(Codec, DecodesFromManyThreadsAtOnce) {
  const std::string bytes = jpeg();
  const auto expected = pixels(bytes);
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int repeat = 0; repeat < 20; ++repeat)
        equal += decode_image(folder_ / "picture.jpg").rgb == expected;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(equal, 80);
}

}  // namespace
}  // namespace clip_lora::image
