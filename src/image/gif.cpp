#include "gif.hpp"

#include <gif_lib.h>

#include <algorithm>
#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"

// giflib reads the blocks and undoes LZW; what a frame then looks like on its canvas is Pillow's view.
namespace clip_lora::image {
namespace {

using Color = std::array<std::uint8_t, 3>;
using Palette = std::array<Color, 256>;

/// The file in memory, as giflib's callback reads it.
struct Source {
  Bytes rest;
  std::size_t size;
  bool exhausted = false;
};

int read_source(GifFileType* gif, GifByteType* out, int count) {
  auto& source = *static_cast<Source*>(gif->UserData);
  const std::size_t taken = std::min(source.rest.size(), static_cast<std::size_t>(count));
  std::ranges::copy(source.rest.first(taken), out);
  source.rest = source.rest.subspan(taken);
  source.exhausted = source.exhausted || taken < static_cast<std::size_t>(count);
  return static_cast<int>(taken);
}

[[noreturn]] void fail(const Source& source, int error) {
  if (source.exhausted) {
    throw DataError("the file is truncated: a GIF whose first frame does not end (it has " +
                    std::to_string(source.size) + " bytes)");
  }
  const char* reason = GifErrorString(error);
  throw DataError("broken GIF: " + std::string(reason != nullptr ? reason : "a header out of range"));
}

struct CloseGif {
  void operator()(GifFileType* gif) const { DGifCloseFile(gif, nullptr); }
};

/// A GIF that is read from the front on; its source must outlive it.
class Reader {
 public:
  explicit Reader(Source& source) : source_(source) {
    int error = 0;
    gif_.reset(DGifOpen(&source, read_source, &error));
    if (!gif_) fail(source, error);
  }

  GifFileType* get() const { return gif_.get(); }
  GifFileType* operator->() const { return gif_.get(); }

  void require(int status) const {
    if (status != GIF_OK) fail(source_, gif_->Error);
  }

  /// The kind of the next block. Bytes between blocks are stepped over, as in Pillow.
  GifRecordType next_record() const {
    GifRecordType type = UNDEFINED_RECORD_TYPE;
    while (DGifGetRecordType(get(), &type) != GIF_OK) {
      if (gif_->Error != D_GIF_ERR_WRONG_RECORD) fail(source_, gif_->Error);
    }
    return type;
  }

 private:
  Source& source_;
  std::unique_ptr<GifFileType, CloseGif> gif_;
};

/// Reads an extension; the index of the transparent colour if it is one that sets it.
std::optional<int> read_extension(const Reader& gif) {
  int label = 0;
  GifByteType* block = nullptr;  // its length, then its bytes; none for the block that ends the extension
  gif.require(DGifGetExtension(gif.get(), &label, &block));
  std::optional<int> transparent;
  if (label == GRAPHICS_EXT_FUNC_CODE && block != nullptr && block[0] >= 4 && (block[1] & 1) != 0) {
    transparent = block[4];
  }
  while (block != nullptr) gif.require(DGifGetExtensionNext(gif.get(), &block));
  return transparent;
}

/// Goes to the first frame and reads its description; the index of its transparent colour.
std::optional<int> find_first_frame(const Reader& gif) {
  std::optional<int> transparent;
  for (;;) {
    const GifRecordType type = gif.next_record();
    if (type == TERMINATE_RECORD_TYPE) throw DataError("broken GIF: it holds no frame");
    if (type == IMAGE_DESC_RECORD_TYPE) break;
    if (const auto found = read_extension(gif)) transparent = found;
  }
  gif.require(DGifGetImageDesc(gif.get()));
  return transparent;
}

Palette grey_ramp() {
  Palette ramp{};
  for (std::size_t i = 0; i < ramp.size(); ++i) ramp[i].fill(static_cast<std::uint8_t>(i));
  return ramp;
}

/// The colours of a table, black beyond its end. As in Pillow, one that is the start of the grey ramp counts
/// as none.
std::optional<Palette> palette_of(const ColorMapObject* table) {
  if (table == nullptr) return std::nullopt;
  Palette palette{};
  const auto count = static_cast<std::size_t>(table->ColorCount);
  for (std::size_t i = 0; i < count; ++i) {
    const GifColorType& color = table->Colors[i];
    palette[i] = {color.Red, color.Green, color.Blue};
  }
  const bool is_grey_ramp =
      std::equal(palette.begin(), palette.begin() + table->ColorCount, grey_ramp().begin());
  return is_grey_ramp ? std::nullopt : std::optional(palette);
}

/// The frame's own colours, else those of the file, else grey.
Palette frame_palette(const Reader& gif) {
  if (const auto own = palette_of(gif->Image.ColorMap)) return *own;
  return palette_of(gif->SColorMap).value_or(grey_ramp());
}

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

void require_decodable(const ImageSize& size) {
  require_decodable_size(static_cast<std::uint64_t>(size.height), static_cast<std::uint64_t>(size.width));
}

/// That of a canvas which holds the screen and the whole frame.
ImageSize canvas_size(const Reader& gif) {
  const GifImageDesc& frame = gif->Image;
  require_decodable({frame.Height, frame.Width});
  const ImageSize size = {std::max(gif->SHeight, frame.Top + frame.Height),
                          std::max(gif->SWidth, frame.Left + frame.Width)};
  require_decodable(size);
  return size;
}

/// A canvas all in `color`.
Image make_canvas(const ImageSize& size, const Color& color) {
  Image canvas{size.height, size.width, {}};
  canvas.rgb.resize(static_cast<std::size_t>(canvas.height) * static_cast<std::size_t>(canvas.width) * 3);
  for (auto pixel = canvas.rgb.begin(); pixel != canvas.rgb.end(); pixel += 3)
    std::ranges::copy(color, pixel);
  return canvas;
}

void paint_frame(const Reader& gif, const Palette& palette, Image& canvas) {
  const GifImageDesc& frame = gif->Image;
  std::vector<GifPixelType> indices(static_cast<std::size_t>(frame.Width));
  for (const int row : row_order(frame.Height, frame.Interlace)) {
    gif.require(DGifGetLine(gif.get(), indices.data(), frame.Width));
    const std::size_t first_pixel =
        static_cast<std::size_t>(frame.Top + row) * static_cast<std::size_t>(canvas.width) +
        static_cast<std::size_t>(frame.Left);
    std::uint8_t* out = canvas.rgb.data() + first_pixel * 3;
    for (const GifPixelType index : indices) out = std::ranges::copy(palette[index], out).out;
  }
}

}  // namespace

Image decode_gif(Bytes bytes) {
  Source source{bytes, bytes.size()};
  const Reader gif(source);
  const std::optional<int> transparent = find_first_frame(gif);
  const ImageSize size = canvas_size(gif);
  require_plausible_size(size, bytes.size());
  const Palette palette = frame_palette(gif);
  Image canvas = make_canvas(size, palette[static_cast<std::size_t>(transparent.value_or(0))]);
  paint_frame(gif, palette, canvas);
  return canvas;
}

ImageSize gif_size(Bytes bytes) {
  Source source{bytes, bytes.size()};
  const Reader gif(source);
  find_first_frame(gif);
  return canvas_size(gif);
}

}  // namespace clip_lora::image
