#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "file_kind.hpp"

// Source of the marker codes: ITU-T T.81, table B.1.
namespace clip_lora::image {
namespace {

using namespace std::string_view_literals;

constexpr std::uint8_t kEndOfImage = 0xd9;
constexpr std::uint8_t kStartOfScan = 0xda;
constexpr std::uint8_t kApplication1 = 0xe1;

/// Markers that stand alone, without a length: TEM, RST0 … RST7, SOI.
bool is_bare(std::uint8_t marker) { return marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8); }

/// SOF0 … SOF15 less DHT, JPG and DAC, which lie between them.
bool is_start_of_frame(std::uint8_t marker) {
  return marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
}

class MarkerReader {
 public:
  explicit MarkerReader(Bytes bytes) : bytes_(bytes) {}

  /// The next marker's code, stepping over scan data: a 0xff in it is followed by 0.
  std::uint8_t next_marker() {
    for (;;) {
      const auto rest = bytes_.subspan(position_);
      const auto escape = std::find(rest.begin(), rest.end(), std::uint8_t{0xff});
      position_ += static_cast<std::size_t>(escape - rest.begin());
      while (at(position_) == 0xff) ++position_;  // any number of 0xff may precede a code
      const std::uint8_t code = at(position_++);
      if (code != 0) return code;
    }
  }

  /// The segment after a marker, without its length field; the reader then stands behind it.
  Bytes segment() {
    const std::size_t length = std::size_t{at(position_)} << 8 | at(position_ + 1);
    if (length < 2) throw DataError("broken JPEG: a segment of length " + std::to_string(length));
    if (position_ + length > bytes_.size()) fail_truncated();
    const Bytes content = bytes_.subspan(position_ + 2, length - 2);
    position_ += length;
    return content;
  }

 private:
  std::uint8_t at(std::size_t position) const {
    if (position >= bytes_.size()) fail_truncated();
    return bytes_[position];
  }

  [[noreturn]] void fail_truncated() const {
    throw DataError("the file is truncated: a JPEG without its end-of-image marker (it has " +
                    std::to_string(bytes_.size()) + " bytes)");
  }

  Bytes bytes_;
  std::size_t position_ = 2;  // behind the start-of-image marker
};

/// Frame header: precision, height, width (two bytes each), number of components.
JpegFrame read_frame(Bytes frame) {
  if (frame.size() < 6)
    throw DataError("broken JPEG: a frame header of " + std::to_string(frame.size()) + " bytes");
  const int components = frame[5];
  if (components != 1 && components != 3 && components != 4) {
    throw DataError("a JPEG of " + std::to_string(components) + " colour components, expected 1, 3 or 4");
  }
  const int height = frame[1] << 8 | frame[2];
  const int width = frame[3] << 8 | frame[4];
  require_decodable_size(static_cast<std::uint64_t>(height), static_cast<std::uint64_t>(width));
  return {.height = height, .width = width, .components = components};
}

/// How exactly the scans of a progressive JPEG have told its coarse coefficients.
class CoarseCoefficients {
 public:
  /// `frame`: as above, then identifier, sampling and table of each component.
  explicit CoarseCoefficients(Bytes frame) {
    for (std::size_t i = 6; i < frame.size(); i += 3) missing_bits_[frame[i]].fill(kUntold);
  }

  /// `scan`: the number of components, identifier and tables of each, first and last coefficient, and in a
  /// nibble how many low bits it leaves out.
  void add_scan(Bytes scan) {
    const std::size_t selection = scan.empty() ? 1 : 1 + std::size_t{scan[0]} * 2;
    if (scan.size() < selection + 3) throw DataError("broken JPEG: a scan header that is too short");
    const std::size_t end = std::min<std::size_t>(scan[selection + 1] + 1U, kCount);
    for (std::size_t i = 1; i < selection; i += 2) {
      auto& bits = missing_bits_[scan[i]];
      for (std::size_t k = scan[selection]; k < end; ++k) bits[k] = scan[selection + 2] & 15;
    }
  }

  bool are_exact() const {
    return std::ranges::all_of(missing_bits_, [](const auto& component) {
      return std::ranges::all_of(component.second, [](int bits) { return bits == 0; });
    });
  }

 private:
  static constexpr std::size_t kCount = 10;  // those that libjpeg-turbo smooths while they are inexact
  static constexpr int kUntold = 16;
  std::map<std::uint8_t, std::array<int, kCount>> missing_bits_;
};

bool is_progressive(std::uint8_t start_of_frame) { return start_of_frame == 0xc2 || start_of_frame == 0xca; }

}  // namespace

JpegFrame read_jpeg_frame(Bytes bytes) {
  MarkerReader reader(bytes);
  JpegFrame frame;
  Bytes exif;
  std::optional<CoarseCoefficients> coefficients;
  bool has_scan = false;
  for (;;) {
    const std::uint8_t marker = reader.next_marker();
    if (marker == kEndOfImage) break;
    if (is_bare(marker)) continue;
    const Bytes content = reader.segment();
    if (is_start_of_frame(marker) && frame.components == 0) frame = read_frame(content);
    if (marker == kApplication1 && exif.empty() && has_at(content, 0, "Exif\0\0"sv)) exif = content;
    if (is_progressive(marker)) coefficients.emplace(content);
    if (marker == kStartOfScan && coefficients) coefficients->add_scan(content);
    has_scan = has_scan || marker == kStartOfScan;
  }
  if (!has_scan || frame.components == 0) throw DataError("broken JPEG: it holds no picture data");
  if (coefficients && !coefficients->are_exact()) {
    throw DataError(
        "an incomplete progressive JPEG is not supported: the scans that sharpen its picture are missing "
        "(hint: fetch it anew, or convert it to PNG)");
  }
  frame.exif = exif;
  return frame;
}

ImageSize jpeg_size(Bytes bytes) {
  MarkerReader reader(bytes);
  for (;;) {
    const std::uint8_t marker = reader.next_marker();
    if (marker == kEndOfImage || marker == kStartOfScan) break;
    if (is_bare(marker)) continue;
    const Bytes content = reader.segment();
    if (!is_start_of_frame(marker)) continue;
    const JpegFrame frame = read_frame(content);
    return {frame.height, frame.width};
  }
  throw DataError("broken JPEG: it holds no picture data");
}

}  // namespace clip_lora::image
