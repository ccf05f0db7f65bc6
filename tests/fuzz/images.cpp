#include <turbojpeg.h>
#include <zlib.h>

#include <algorithm>
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <optional>

#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "support/archive_builder.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"
#include "support/png_builder.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

using namespace std::string_literals;
using testing::big_endian;
using testing::le16;
using testing::le32;

/// A PNG whose chunks have their right checksums, which a fuzzer would hardly guess; anything else as it is.
std::string with_right_checksums(std::string_view input) {
  std::string bytes(input);
  constexpr std::size_t kSignature = 8;
  if (!bytes.starts_with("\x89PNG")) return bytes;
  for (std::size_t at = kSignature; at + 12 <= bytes.size();) {
    std::size_t length = 0;
    for (std::size_t i = 0; i < 4; ++i) length = length << 8 | static_cast<std::uint8_t>(bytes[at + i]);
    if (length > bytes.size() - at - 12) break;
    bytes.replace(at + 8 + length, 4, big_endian(testing::zlib_crc(bytes.substr(at + 4, length + 4))));
    at += 12 + length;
  }
  return bytes;
}

/// A preprocessing that the input chooses.
image::Preprocessing preprocessing_of(std::string_view input) {
  std::uint32_t choice = testing::zlib_crc(std::string(input));
  const auto draw = [&](std::uint32_t count) {
    const std::uint32_t drawn = choice % count;
    choice /= count;
    return drawn;
  };
  image::Preprocessing preprocessing;
  preprocessing.size_px = 8 + static_cast<int>(draw(9));
  preprocessing.resize_px = preprocessing.size_px;
  preprocessing.resize_mode = static_cast<image::ResizeMode>(draw(3));
  preprocessing.interpolation = static_cast<image::Interpolation>(draw(6));
  preprocessing.orientation = static_cast<image::Orientation>(draw(2));
  preprocessing.border_px = static_cast<int>(draw(3));
  return preprocessing;
}

void run(std::string_view input) {
  const image::Preprocessing preprocessing = preprocessing_of(input);
  const auto path = scratch_file("picture", with_right_checksums(input));
  std::optional<image::ImageSize> size;
  read_whatever_it_is([&] { size = image::read_image_size(path); });
  // A large picture takes a second or more with sanitizers, so few of those are decoded. Bombs are refused at once.
  constexpr int kLarge = 1'000'000, kBomb = 100'000'000;
  const std::int64_t area_px = size ? std::int64_t{size->height} * size->width : 0;
  if (area_px > kLarge && area_px < kBomb && testing::zlib_crc(std::string(input)) % 64 != 0) return;
  read_whatever_it_is([&] {
    const image::Image picture = image::decode_image(path, preprocessing.orientation);
    const auto pixels = static_cast<std::size_t>(picture.height) * static_cast<std::size_t>(picture.width);
    require(picture.rgb.size() == pixels * 3 && pixels > 0, "a picture has all its pixels");
    require(size && std::minmax(size->height, size->width) == std::minmax(picture.height, picture.width),
            "a picture is as large as its header says");
    if (pixels > kLarge) return;  // of the file there is no more to read
    const image::Image view = image::evaluation_view(picture, preprocessing);
    const auto side = static_cast<std::size_t>(preprocessing.size_px);
    require(view.rgb.size() == side * side * 3, "a view is a square");
  });
}

std::string text_of(const std::vector<std::uint8_t>& bytes) { return {bytes.begin(), bytes.end()}; }

std::string exif(int orientation) {
  return "Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0"s + static_cast<char>(orientation) +
         "\0\0\0\0\0\0"s;
}

/// `format` and `flags` are TurboJPEG's; of 11 x 9 pixels.
std::string jpeg(TJPF format, TJSAMP sampling, int flags) {
  constexpr int kWidth = 11, kHeight = 9;
  std::vector<std::uint8_t> pixels;
  for (int i = 0; i < kWidth * kHeight * tjPixelSize[format]; ++i)
    pixels.push_back(static_cast<std::uint8_t>(29 * i));
  unsigned char* bytes = nullptr;
  unsigned long size = 0;
  void* const compressor = tjInitCompress();
  const int status =
      tjCompress2(compressor, pixels.data(), kWidth, 0, kHeight, format, &bytes, &size, sampling, 80, flags);
  require(status == 0, "a JPEG is written");
  std::string file(reinterpret_cast<const char*>(bytes), size);
  tjFree(bytes);
  tjDestroy(compressor);
  return file;
}

std::string webp(int quality) {
  cv::Mat picture(9, 11, CV_8UC3);
  cv::randu(picture, 0, 255);
  std::vector<std::uint8_t> bytes;
  cv::imencode(".webp", picture, bytes, {cv::IMWRITE_WEBP_QUALITY, quality});  // above 100: without loss
  return text_of(bytes);
}

/// The picture chunk of a plain WebP in an extended one with an EXIF block.
std::string extended_webp(const std::string& plain) {
  const std::string block = exif(6).substr(6);
  const std::string body = "WEBPVP8X"s + le32(10) + "\x08\0\0\0\x0a\0\0\x08\0\0"s + plain.substr(12) +
                           "EXIF" + le32(block.size()) + block;
  return "RIFF" + le32(body.size()) + body;
}

std::string bmp(std::uint32_t bits, std::uint32_t compression, const std::string& behind,
                const std::string& rows) {
  return "BM"s + le32(0) + le32(0) + le32(54 + behind.size()) + le32(40) + le32(2) + le32(2) + le16(1) +
         le16(bits) + le32(compression) + std::string(12, '\0') + le32(bits <= 8 ? 2 : 0) + le32(0) + behind +
         rows;
}

void add_pngs(std::vector<std::string>& all) {
  for (const testing::PngKind kind :
       {testing::PngKind{0, 1}, {0, 8}, {0, 16}, {2, 8}, {2, 16}, {4, 8}, {6, 8}, {6, 16}}) {
    all.push_back(testing::build_png(kind, 2, 1, std::string(kind.bit_depth == 1 ? 2U : 16U, '\x5a')));
  }
  const std::string palette = testing::png_chunk("PLTE", "\1\2\3\4\5\6"s);
  all.push_back(
      testing::build_png({3, 8}, 2, 2, "\0\1\1\0"s, palette + testing::png_chunk("eXIf", exif(8).substr(6))));
  const auto path = scratch_folder() / "seed.png";
  image::write_png(path, testing::formula_picture(9, 11));
  all.push_back(testing::read_bytes(path));
}

void add_bombs(std::vector<std::string>& all) {
  const auto png_of = [](std::uint32_t side) {
    std::string bytes = testing::build_png({0, 8}, 1, 1, "x");
    bytes.replace(16, 8, big_endian(side) + big_endian(side));
    return with_right_checksums(bytes);
  };
  all.push_back(png_of(100'000));
  all.push_back(png_of(13'000));
  std::string picture = jpeg(TJPF_RGB, TJSAMP_420, 0);
  const std::size_t frame = picture.find("\xff\xc0"s);
  all.push_back(picture.replace(frame + 5, 4, "\x33\0\x33\0"s));  // 13,056 x 13,056
}

std::vector<std::string> seeds() {
  std::vector<std::string> all = {jpeg(TJPF_RGB, TJSAMP_420, 0),
                                  jpeg(TJPF_RGB, TJSAMP_444, TJFLAG_PROGRESSIVE),
                                  jpeg(TJPF_GRAY, TJSAMP_GRAY, 0), jpeg(TJPF_CMYK, TJSAMP_444, 0),
                                  jpeg(TJPF_CMYK, TJSAMP_420, TJFLAG_PROGRESSIVE)};
  const std::string segment = exif(6);
  all.push_back(all.front());
  all.back().insert(2, "\xff\xe1"s + static_cast<char>((segment.size() + 2) >> 8) +
                           static_cast<char>(segment.size() + 2) + segment);
  add_pngs(all);
  for (const int quality : {50, 101}) {
    all.push_back(webp(quality));
    all.push_back(extended_webp(all.back()));
  }
  const std::string screen = "GIF89a\x02\0\x01\0\x80\0\0\x0a\x14\x1e\x28\x32\x3c"s;
  const std::string frame = ",\x01\0\0\0\x01\0\x01\0\0\x02\x02\x4c\x01\0;"s;
  all.push_back(screen + frame);
  all.push_back(screen + "!\xfe\x03hi!\0!\xf9\x04\x01\0\0\x01\0"s + frame);
  all.push_back(bmp(24, 0, "", std::string(16, '\x33')));
  all.push_back(bmp(8, 0, "\1\2\3\0\4\5\6\0"s, "\0\1\0\0\1\0\0\0"s));
  all.push_back(bmp(1, 0, "\1\2\3\0\4\5\6\0"s, "\x40\0\0\0\x80\0\0\0"s));
  all.push_back(bmp(16, 3, le32(0xf800) + le32(0x7e0) + le32(0x1f), std::string(8, '\x77')));
  all.push_back(bmp(32, 0, "", std::string(16, '\x11')));
  add_bombs(all);
  return all;
}

}  // namespace

const Target images = {"images", run, seeds};

}  // namespace clip_lora::fuzz
