#include "bench/photos.hpp"

#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>

#include "clip_lora/core/parallel.hpp"

namespace clip_lora::bench {
namespace {

constexpr int kSpare = 500;     // by which the noise is larger than a picture, so that each sees another part
constexpr int kNoise = 24;      // grey levels
constexpr int kQuality = 90;    // a camera's
constexpr int kTexturePx = 10;  // from one of the texture's colours to the next

cv::Mat random_colours(int height, int width, int levels, cv::RNG& generator) {
  cv::Mat colours(height, width, CV_8UC3);
  generator.fill(colours, cv::RNG::UNIFORM, 0, levels);
  return colours;
}

cv::Mat enlarged(const cv::Mat& colours, PhotoSize size, int interpolation) {
  cv::Mat large;
  cv::resize(colours, large, {size.width_px, size.height_px}, 0, 0, interpolation);
  return large;
}

cv::Mat make_photo(int index, PhotoSize size, const cv::Mat& noise) {
  cv::RNG generator(static_cast<std::uint64_t>(index) + 1);
  const cv::Mat colours = enlarged(random_colours(9, 12, 256, generator), size, cv::INTER_CUBIC);
  const cv::Mat texture =
      enlarged(random_colours(size.height_px / kTexturePx, size.width_px / kTexturePx, 256, generator), size,
               cv::INTER_LINEAR);
  cv::Mat photo;
  cv::addWeighted(colours, 0.75, texture, 0.25, 0.0, photo);
  const cv::Rect part(generator.uniform(0, kSpare), generator.uniform(0, kSpare), size.width_px,
                      size.height_px);
  cv::addWeighted(photo, 1.0, noise(part), 1.0, -kNoise / 2.0, photo);
  return photo;
}

}  // namespace

void write_photos(const std::filesystem::path& folder, int count, int classes, PhotoSize size, int workers) {
  cv::setNumThreads(1);  // one picture per thread is parallel enough
  for (int label = 0; label < classes; ++label) {
    std::filesystem::create_directories(folder / ("class_" + std::to_string(label)));
  }
  cv::RNG generator(1);
  const cv::Mat noise = random_colours(size.height_px + kSpare, size.width_px + kSpare, kNoise, generator);
  parallel_for(static_cast<std::size_t>(count), workers, [&](std::size_t i) {
    const int index = static_cast<int>(i);
    const auto path =
        folder / ("class_" + std::to_string(index % classes)) / ("photo_" + std::to_string(index) + ".jpg");
    if (!cv::imwrite(path.string(), make_photo(index, size, noise), {cv::IMWRITE_JPEG_QUALITY, kQuality}))
      throw std::runtime_error("cannot write " + path.string());
  });
}

}  // namespace clip_lora::bench
