#include "gif.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"

// Source: CompuServe, Graphics Interchange Format, version 89a: sections 18 (screen), 20 (image descriptor),
// 23 (graphic control), appendix F (LZW) and E (interlacing).
namespace clip_lora::image {
namespace {

using Color = std::array<std::uint8_t, 3>;
using Palette = std::array<Color, 256>;

constexpr int kMaxCodeBits = 12;

/// Reads numbers from the front of the file on.
class Reader {
 public:
  explicit Reader(Bytes bytes) : bytes_(bytes) {}

  Bytes take(std::size_t count) {
    if (count > bytes_.size() - position_) {
      throw DataError("the file is truncated: a GIF whose first frame does not end (it has " +
                      std::to_string(bytes_.size()) + " bytes)");
    }
    position_ += count;
    return bytes_.subspan(position_ - count, count);
  }

  int byte() { return take(1)[0]; }

  int word() {
    const Bytes two = take(2);
    return two[0] | two[1] << 8;
  }

  /// A sub-block; empty for the one that ends a sequence of them.
  Bytes block() { return take(static_cast<std::size_t>(byte())); }

  std::vector<std::uint8_t> joined_blocks() {
    std::vector<std::uint8_t> joined;
    for (Bytes next = block(); !next.empty(); next = block())
      joined.insert(joined.end(), next.begin(), next.end());
    return joined;
  }

 private:
  Bytes bytes_;
  std::size_t position_ = 0;
};

Palette grey_ramp() {
  Palette ramp{};
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i].fill(static_cast<std::uint8_t>(i));
  return ramp;
}

/// A colour table of 2^(n+1) entries if `flags` announce one, n being their lowest three bits; black beyond
/// its end. As in Pillow, a table that is the start of the grey ramp counts as none.
std::optional<Palette> read_palette(Reader& reader, int flags) {
  if ((flags & 0x80) == 0) return std::nullopt;
  const int count = 1 << ((flags & 7) + 1);
  Palette palette{};
  for (int i = 0; i < count; ++i) {
    std::ranges::copy(reader.take(3), palette[static_cast<std::size_t>(i)].begin());
  }
  const bool is_grey_ramp = std::equal(palette.begin(), palette.begin() + count, grey_ramp().begin());
  return is_grey_ramp ? std::nullopt : std::optional(palette);
}

/// The extension that follows its introducer; the index of the transparent colour if it is one that sets it.
std::optional<int> read_extension(Reader& reader) {
  constexpr int kGraphicControl = 0xf9;
  const int label = reader.byte();
  const auto content = reader.joined_blocks();
  if (label != kGraphicControl || content.size() < 4 || (content[0] & 1) == 0) return std::nullopt;
  return content[3];
}

/// Undoes LZW: `count` palette indices out of codes of `literal_bits` + 1 bits and more, lowest bits first.
class LzwDecoder {
 public:
  LzwDecoder(const std::vector<std::uint8_t>& data, int literal_bits)
      : data_(data), literal_bits_(literal_bits), clear_code_(1 << literal_bits), end_code_(clear_code_ + 1) {
    reset();
  }

  std::vector<std::uint8_t> decode(std::size_t count) {
    std::vector<std::uint8_t> indices;
    indices.reserve(count);
    while (indices.size() < count) {
      const int code = next_code();
      if (code == end_code_) throw DataError("broken GIF: its first frame ends too early");
      if (code == clear_code_) {
        reset();
      } else {
        append_string(code, indices);
      }
    }
    indices.resize(count);
    return indices;
  }

 private:
  struct Entry {
    int prefix;  ///< the string's code without its last index
    std::uint8_t last;
  };

  int table_size() const { return end_code_ + 1 + static_cast<int>(entries_.size()); }

  void reset() {
    entries_.clear();
    code_bits_ = literal_bits_ + 1;
    previous_ = -1;
  }

  int next_code() {
    int code = 0;
    for (int bit = 0; bit < code_bits_; ++bit, ++bit_position_) {
      if (bit_position_ / 8 >= data_.size())
        throw DataError("the file is truncated: too few data for its first frame");
      code |= (data_[bit_position_ / 8] >> (bit_position_ % 8) & 1) << bit;
    }
    return code;
  }

  void append_string(int code, std::vector<std::uint8_t>& indices) {
    const bool not_yet_known =
        code == table_size() && previous_ >= 0;  // the previous string and its own first index
    if (code >= table_size() && !not_yet_known)
      throw DataError("broken GIF: an LZW code that was not defined");
    const std::size_t start = indices.size();
    for (int rest = not_yet_known ? previous_ : code;; rest = entries_[entry_of(rest)].prefix) {
      if (rest < clear_code_) {
        indices.push_back(static_cast<std::uint8_t>(rest));
        break;
      }
      indices.push_back(entries_[entry_of(rest)].last);
    }
    std::reverse(indices.begin() + static_cast<std::ptrdiff_t>(start), indices.end());
    const std::uint8_t first = indices[start];
    if (not_yet_known) indices.push_back(first);
    define(first);
    previous_ = code;
  }

  /// The previous string, followed by the first index of this one, becomes the next code.
  void define(std::uint8_t first) {
    if (previous_ < 0 || table_size() == 1 << kMaxCodeBits) return;
    entries_.push_back({previous_, first});
    if (table_size() == 1 << code_bits_ && code_bits_ < kMaxCodeBits) ++code_bits_;
  }

  std::size_t entry_of(int code) const { return static_cast<std::size_t>(code - end_code_ - 1); }

  const std::vector<std::uint8_t>& data_;
  int literal_bits_;
  int clear_code_;
  int end_code_;
  std::vector<Entry> entries_;
  int code_bits_ = 0;
  int previous_ = -1;  ///< the code before, or −1 after a clear code
  std::size_t bit_position_ = 0;
};

/// The rows of a frame in the order in which the file has them.
std::vector<int> row_order(int height, bool interlaced) {
  struct Pass {
    int first;
    int step;
  };
  const auto passes =
      interlaced ? std::vector<Pass>{{0, 8}, {4, 8}, {2, 4}, {1, 2}} : std::vector<Pass>{{0, 1}};
  std::vector<int> rows;
  for (const Pass& pass : passes) {
    for (int row = pass.first; row < height; row += pass.step) rows.push_back(row);
  }
  return rows;
}

struct Frame {
  Box box;
  bool interlaced = false;
  Palette palette;
  std::vector<std::uint8_t> indices;  ///< box.height · box.width, in the file's row order
};

Frame read_frame(Reader& reader, const std::optional<Palette>& global_palette) {
  Frame frame;
  frame.box.left = reader.word();
  frame.box.top = reader.word();
  frame.box.width = reader.word();
  frame.box.height = reader.word();
  require_decodable_size(static_cast<std::uint64_t>(frame.box.height),
                         static_cast<std::uint64_t>(frame.box.width));
  const int flags = reader.byte();
  frame.interlaced = (flags & 0x40) != 0;
  const auto own_palette = read_palette(reader, flags);
  frame.palette = own_palette ? *own_palette : global_palette.value_or(grey_ramp());
  const int literal_bits = reader.byte();
  if (literal_bits < 1 || literal_bits > 8) {
    throw DataError("broken GIF: literals of " + std::to_string(literal_bits) + " bits, expected 1 to 8");
  }
  const auto data = reader.joined_blocks();
  const std::size_t count =
      static_cast<std::size_t>(frame.box.height) * static_cast<std::size_t>(frame.box.width);
  frame.indices = LzwDecoder(data, literal_bits).decode(count);
  return frame;
}

void paint(const Frame& frame, Image& canvas) {
  const std::uint8_t* index = frame.indices.data();
  for (const int row : row_order(frame.box.height, frame.interlaced)) {
    const std::size_t first_pixel =
        static_cast<std::size_t>(frame.box.top + row) * canvas.width + frame.box.left;
    std::uint8_t* out = canvas.rgb.data() + first_pixel * 3;
    for (int column = 0; column < frame.box.width; ++column)
      out = std::ranges::copy(frame.palette[*index++], out).out;
  }
}

/// `frame` on a canvas of at least [screen_height, screen_width] in the palette's colour `background`.
Image compose(const Frame& frame, int screen_height, int screen_width, int background) {
  Image canvas;
  canvas.height = std::max(screen_height, frame.box.top + frame.box.height);
  canvas.width = std::max(screen_width, frame.box.left + frame.box.width);
  require_decodable_size(static_cast<std::uint64_t>(canvas.height), static_cast<std::uint64_t>(canvas.width));
  canvas.rgb.resize(static_cast<std::size_t>(canvas.height) * static_cast<std::size_t>(canvas.width) * 3);
  const Color& color = frame.palette[static_cast<std::size_t>(background)];
  for (auto pixel = canvas.rgb.begin(); pixel != canvas.rgb.end(); pixel += 3)
    std::ranges::copy(color, pixel);
  paint(frame, canvas);
  return canvas;
}

}  // namespace

Image decode_gif(Bytes bytes) {
  constexpr int kExtension = '!';
  constexpr int kImage = ',';
  constexpr int kTrailer = ';';
  Reader reader(bytes);
  reader.take(6);  // the signature
  const int screen_width = reader.word();
  const int screen_height = reader.word();
  const int flags = reader.byte();
  reader.take(2);  // background colour and pixel aspect ratio, of no effect on a single frame
  const auto global_palette = read_palette(reader, flags);
  std::optional<int> transparent;
  for (;;) {
    const int introducer = reader.byte();
    if (introducer == kTrailer) throw DataError("broken GIF: it holds no frame");
    if (introducer == kImage) break;
    if (introducer != kExtension) continue;
    if (const auto found = read_extension(reader)) transparent = found;
  }
  return compose(read_frame(reader, global_palette), screen_height, screen_width, transparent.value_or(0));
}

}  // namespace clip_lora::image
