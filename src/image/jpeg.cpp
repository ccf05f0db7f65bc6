#include "jpeg.hpp"

#include <turbojpeg.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/codec.hpp"

// TurboJPEG rather than libjpeg itself: its shared library keeps its copy of libjpeg's functions to itself,
// so that it lives beside the one in a static OpenCV. Unlike OpenCV's reader it writes red first, prints
// nothing, and knows Pillow's CMYK.
namespace clip_lora::image {
namespace {

struct DestroyHandle {
  void operator()(void* handle) const { tjDestroy(handle); }
};

/// [height, width, channels of `format`]. The default flags are Pillow's decoder: accurate inverse DCT,
/// smooth upsampling of the chroma. Beyond 500 scans, each of which may be a few bytes for all pixels, it gives up.
std::vector<std::uint8_t> decompress(Bytes bytes, const JpegFrame& frame, TJPF format,
                                     std::vector<std::uint8_t> pixels) {
  const std::unique_ptr<void, DestroyHandle> decompressor(tjInitDecompress());
  if (!decompressor) throw DataError("libjpeg-turbo cannot start: " + std::string(tjGetErrorStr2(nullptr)));
  const std::size_t size = static_cast<std::size_t>(frame.height) * static_cast<std::size_t>(frame.width) *
                           static_cast<std::size_t>(tjPixelSize[format]);
  if (pixels.capacity() < size) pixels = {};  // what is there need not be copied
  pixels.resize(size);
  const auto decode = [&](int flags) -> std::string {  // what libjpeg complains of, if anything
    const int status =
        tjDecompress2(decompressor.get(), bytes.data(), static_cast<unsigned long>(bytes.size()),
                      pixels.data(), frame.width, /*pitch=*/0, frame.height, format, flags);
    return status == 0 ? "" : tjGetErrorStr2(decompressor.get());
  };
  // A warning is about damage that libjpeg steps over, as it does in Pillow. An error behind a warning is told as one,
  // too, but has replaced the first warning's message; stopping at the first warning tells which it was, and writes no
  // row that is not there already.
  const std::string message = decode(TJFLAG_LIMITSCANS);
  if (message.empty()) return pixels;
  if (tjGetErrorCode(decompressor.get()) != TJERR_WARNING ||
      decode(TJFLAG_LIMITSCANS | TJFLAG_STOPONWARNING) != message) {
    throw DataError("its data are damaged: " + message);
  }
  return pixels;
}

/// a · b / 255, rounded as Pillow does it.
int scale(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

/// `inks`: cyan, magenta, yellow and black as the file has them, where 255 is no ink.
std::vector<std::uint8_t> mix_inks(const std::vector<std::uint8_t>& inks) {
  std::vector<std::uint8_t> rgb(inks.size() / 4 * 3);
  std::uint8_t* out = rgb.data();
  for (std::size_t i = 0; i < inks.size(); i += 4) {
    const int light = inks[i + 3];  // what black leaves
    for (std::size_t ink = 0; ink < 3; ++ink) {
      *out++ = static_cast<std::uint8_t>(light - scale(255 - inks[i + ink], light));
    }
  }
  return rgb;
}

struct FreeJpeg {
  void operator()(unsigned char* bytes) const { tjFree(bytes); }
};

}  // namespace

Image decode_jpeg(Bytes bytes, const JpegFrame& frame, std::vector<std::uint8_t> memory) {
  return {frame.height, frame.width,
          frame.components == 4 ? mix_inks(decompress(bytes, frame, TJPF_CMYK, {}))
                                : decompress(bytes, frame, TJPF_RGB, std::move(memory))};
}

std::vector<std::uint8_t> encode_jpeg(const Image& image, int quality) {
  const std::unique_ptr<void, DestroyHandle> compressor(tjInitCompress());
  unsigned char* bytes = nullptr;  // libjpeg-turbo allocates it
  unsigned long size = 0;
  const int status =
      compressor ? tjCompress2(compressor.get(), image.rgb.data(), image.width, /*pitch=*/0, image.height,
                               TJPF_RGB, &bytes, &size, TJSAMP_420, quality, /*flags=*/0)
                 : -1;
  const std::unique_ptr<unsigned char, FreeJpeg> owner(bytes);
  if (status != 0)
    throw Error("libjpeg-turbo cannot write: " + std::string(tjGetErrorStr2(compressor.get())));
  return {bytes, bytes + size};
}

}  // namespace clip_lora::image
