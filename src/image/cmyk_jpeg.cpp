#include "cmyk_jpeg.hpp"

#include <turbojpeg.h>

#include <memory>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"

// TurboJPEG rather than libjpeg itself: its shared library keeps its copy of libjpeg's functions to itself,
// so that it lives beside the one in a static OpenCV.
namespace clip_lora::image {
namespace {

struct DestroyDecompressor {
  void operator()(void* handle) const { tjDestroy(handle); }
};

/// [height, width, 4] as the file has them: 255 is no ink.
std::vector<std::uint8_t> decode_inks(Bytes bytes, const JpegFrame& frame) {
  const std::unique_ptr<void, DestroyDecompressor> decompressor(tjInitDecompress());
  if (!decompressor) throw DataError("libjpeg-turbo cannot start: " + std::string(tjGetErrorStr2(nullptr)));
  std::vector<std::uint8_t> inks(static_cast<std::size_t>(frame.height) *
                                 static_cast<std::size_t>(frame.width) * 4);
  const int status =
      tjDecompress2(decompressor.get(), bytes.data(), static_cast<unsigned long>(bytes.size()), inks.data(),
                    frame.width, /*pitch=*/0, frame.height, TJPF_CMYK, /*flags=*/0);
  // A warning is about damage that libjpeg steps over, as it does in Pillow.
  if (status != 0 && tjGetErrorCode(decompressor.get()) != TJERR_WARNING) {
    throw DataError("its data are damaged: " + std::string(tjGetErrorStr2(decompressor.get())));
  }
  return inks;
}

/// a · b / 255, rounded as Pillow does it.
int scale(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

}  // namespace

Image decode_cmyk_jpeg(Bytes bytes, const JpegFrame& frame) {
  const std::vector<std::uint8_t> inks = decode_inks(bytes, frame);
  Image image{frame.height, frame.width, std::vector<std::uint8_t>(inks.size() / 4 * 3)};
  std::uint8_t* out = image.rgb.data();
  for (std::size_t i = 0; i < inks.size(); i += 4) {
    const int light = inks[i + 3];  // what black leaves
    for (std::size_t ink = 0; ink < 3; ++ink) {
      *out++ = static_cast<std::uint8_t>(light - scale(255 - inks[i + ink], light));
    }
  }
  return image;
}

}  // namespace clip_lora::image
