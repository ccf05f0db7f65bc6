#include <algorithm>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "file_kind.hpp"

// Source of the marker codes: ITU-T T.81, table B.1.
namespace clip_lora::image {
namespace {

constexpr std::uint8_t kEndOfImage = 0xd9;
constexpr std::uint8_t kStartOfScan = 0xda;

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
void check_frame(Bytes frame) {
  if (frame.size() < 6)
    throw DataError("broken JPEG: a frame header of " + std::to_string(frame.size()) + " bytes");
  const int components = frame[5];
  if (components == 4) {
    throw DataError("a CMYK JPEG (four colour components) is not supported (hint: convert it to RGB)");
  }
  if (components != 1 && components != 3) {
    throw DataError("a JPEG of " + std::to_string(components) + " colour components, expected 1 or 3");
  }
  require_decodable_size(std::uint64_t{frame[1]} << 8 | frame[2], std::uint64_t{frame[3]} << 8 | frame[4]);
}

}  // namespace

void check_jpeg(Bytes bytes) {
  MarkerReader reader(bytes);
  bool has_scan = false;
  for (;;) {
    const std::uint8_t marker = reader.next_marker();
    if (marker == kEndOfImage) break;
    if (is_bare(marker)) continue;
    const Bytes content = reader.segment();
    if (is_start_of_frame(marker)) check_frame(content);
    has_scan = has_scan || marker == kStartOfScan;
  }
  if (!has_scan) throw DataError("broken JPEG: it holds no picture data");
}

}  // namespace clip_lora::image
