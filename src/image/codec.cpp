#include "clip_lora/image/codec.hpp"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <limits>
#include <mutex>
#include <opencv2/core.hpp>
#include <opencv2/core/utils/logger.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "bmp.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "exif.hpp"
#include "file_kind.hpp"
#include "gif.hpp"
#include "jpeg.hpp"
#include "quiet_stderr.hpp"

namespace clip_lora::image {
namespace {

constexpr int kColor = cv::IMREAD_COLOR | cv::IMREAD_IGNORE_ORIENTATION;

constexpr std::size_t kKindBytes = 16;           // file_kind looks at no more
constexpr std::size_t kMaxFileBytes = 1U << 30;  // the largest BMP that is decoded has 0.7 GB

[[noreturn]] void refuse(FileKind kind) {
  if (kind == FileKind::kTiff) {
    throw DataError("it is a TIFF, which is not supported (hint: convert it to PNG; it may keep its name)");
  }
  throw DataError("it is no image: neither JPEG, PNG, GIF, WebP nor BMP by its content");
}

/// Refuses all that is no regular file, before it is opened: opening a pipe would wait for its other end.
void require_regular_file(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (error) throw DataError("cannot be read: " + error.message());
  if (std::filesystem::is_directory(status)) throw DataError("it is a folder, expected a file");
  if (!std::filesystem::is_regular_file(status)) {
    throw DataError("it is a pipe, a socket or a device, expected a regular file");
  }
}

/// The image file's first `limit` bytes, or all that it has. What is no image is refused by its first bytes,
/// whatever its size.
std::vector<std::uint8_t> read_bytes(const std::filesystem::path& path, std::size_t limit) {
  const auto require = [](bool good) {
    if (!good) throw DataError("cannot be read: " + std::generic_category().message(errno));
  };
  require_regular_file(path);
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  require(file.is_open());
  const auto size = static_cast<std::size_t>(file.tellg());
  if (size == 0) throw DataError("the file is empty");
  file.seekg(0);
  std::vector<std::uint8_t> bytes;
  const auto read_up_to = [&](std::size_t end) {
    const std::size_t begin = bytes.size();
    bytes.resize(end);
    file.read(reinterpret_cast<char*>(bytes.data() + begin), static_cast<std::streamsize>(end - begin));
    require(file.good());
  };
  read_up_to(std::min(size, kKindBytes));
  const FileKind kind = file_kind(bytes);
  if (kind == FileKind::kTiff || kind == FileKind::kUnknown) refuse(kind);
  if (size > kMaxFileBytes) {
    throw DataError("the file has " + std::to_string(size) + " bytes, expected at most " +
                    std::to_string(kMaxFileBytes));
  }
  read_up_to(std::min(size, limit));
  return bytes;
}

/// OpenCV's decoder with its own messages off: the caller reports in one error what went wrong.
cv::Mat decode_with_opencv(const std::vector<std::uint8_t>& bytes, int flags) {
  static std::once_flag once;
  std::call_once(once, [] { cv::utils::logging::setLogLevel(cv::utils::logging::LOG_LEVEL_SILENT); });
  const QuietStderr quiet;
  cv::Mat decoded;
  try {
    decoded = cv::imdecode(bytes, flags);
  } catch (const cv::Exception& error) {
    throw DataError("OpenCV cannot decode it: " + error.err);
  }
  if (decoded.empty()) throw DataError("its data are damaged, or of a kind that OpenCV does not know");
  return decoded;
}

/// OpenCV's [height, width] of blue, green, red.
Image image_from(const cv::Mat& bgr) {
  Image image{bgr.rows, bgr.cols, std::vector<std::uint8_t>(bgr.total() * 3)};
  cv::Mat rgb(bgr.rows, bgr.cols, CV_8UC3, image.rgb.data());
  cv::cvtColor(bgr, rgb, cv::COLOR_BGR2RGB);
  return image;
}

/// Pillow keeps the high byte of 16-bit colours, but clips 16-bit grey at 255.
cv::Mat to_8_bits(const cv::Mat& decoded, bool clip) {
  cv::Mat result(decoded.rows, decoded.cols, CV_8UC3);
  std::transform(decoded.begin<cv::Vec3w>(), decoded.end<cv::Vec3w>(), result.begin<cv::Vec3b>(),
                 [=](const cv::Vec3w& in) {
                   cv::Vec3b out;
                   for (int channel = 0; channel < 3; ++channel) {
                     out[channel] =
                         static_cast<std::uint8_t>(clip ? std::min<int>(in[channel], 255) : in[channel] >> 8);
                   }
                   return out;
                 });
  return result;
}

Image decode_png(const Png& png) {
  if (png.bit_depth != 16) return image_from(decode_with_opencv(png.pixels_only, kColor));
  const cv::Mat decoded = decode_with_opencv(png.pixels_only, kColor | cv::IMREAD_ANYDEPTH);
  return image_from(to_8_bits(decoded, png.grey_without_alpha));
}

Image upright_if(Orientation orientation, Image image, Bytes exif) {
  if (orientation == Orientation::kIgnoreExif) return image;
  return turn_upright(std::move(image), exif_orientation(exif));
}

Image decode_bytes(const std::vector<std::uint8_t>& bytes, Orientation orientation,
                   std::vector<std::uint8_t> memory) {
  const FileKind kind = file_kind(bytes);
  switch (kind) {
    case FileKind::kJpeg: {
      const JpegFrame frame = read_jpeg_frame(bytes);
      require_plausible_size({frame.height, frame.width}, bytes.size());
      return upright_if(orientation, decode_jpeg(bytes, frame, std::move(memory)), frame.exif);
    }
    case FileKind::kPng: {
      const Png png = strip_png(bytes);
      require_plausible_size(png.size, bytes.size());
      return upright_if(orientation, decode_png(png), png.exif);
    }
    case FileKind::kWebp:
      check_webp(bytes);
      require_plausible_size(webp_size(bytes), bytes.size());
      return upright_if(orientation, image_from(decode_with_opencv(bytes, kColor)), webp_exif(bytes));
    case FileKind::kBmp:
      return decode_bmp(bytes);
    case FileKind::kGif:
      return decode_gif(bytes);
    case FileKind::kTiff:
    case FileKind::kUnknown:
      break;
  }
  refuse(kind);
}

/// `bytes`: the file's first ones.
ImageSize size_from(Bytes bytes) {
  const FileKind kind = file_kind(bytes);
  switch (kind) {
    case FileKind::kJpeg:
      return jpeg_size(bytes);
    case FileKind::kPng:
      return png_size(bytes);
    case FileKind::kWebp:
      return webp_size(bytes);
    case FileKind::kBmp:
      return bmp_size(bytes);
    case FileKind::kGif:
      return gif_size(bytes);
    case FileKind::kTiff:
    case FileKind::kUnknown:
      break;
  }
  refuse(kind);
}

ImageSize find_size(const std::filesystem::path& path) {
  for (std::size_t limit = 16U << 10;; limit *= 8) {
    const std::vector<std::uint8_t> bytes = read_bytes(path, limit);
    try {
      return size_from(bytes);
    } catch (const DataError&) {
      if (bytes.size() < limit) throw;  // else what comes before the size, a thumbnail say, may be longer
    }
  }
}

/// What `read` returns; its errors name the file.
template <typename Read>
auto naming(const std::filesystem::path& path, const Read& read) {
  try {
    return read();
  } catch (const DataError& error) {
    throw DataError("image '" + path.string() + "': " + error.what());
  }
}

}  // namespace

Image decode_image(const std::filesystem::path& path, Orientation orientation,
                   std::vector<std::uint8_t> memory) {
  constexpr std::size_t kWhole = std::numeric_limits<std::size_t>::max();
  return naming(path, [&] { return decode_bytes(read_bytes(path, kWhole), orientation, std::move(memory)); });
}

ImageSize read_image_size(const std::filesystem::path& path) {
  return naming(path, [&] { return find_size(path); });
}

void write_png(const std::filesystem::path& path, const Image& image) {
  const cv::Mat rgb(image.height, image.width, CV_8UC3, const_cast<std::uint8_t*>(image.rgb.data()));
  cv::Mat bgr;
  cv::cvtColor(rgb, bgr, cv::COLOR_RGB2BGR);
  std::vector<std::uint8_t> bytes;
  cv::imencode(".png", bgr, bytes);
  io::write_atomically(path, std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

}  // namespace clip_lora::image
