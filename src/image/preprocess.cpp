#include "clip_lora/image/preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <random>

#include "clip_lora/image/resample.hpp"

namespace clip_lora::image {
namespace {

constexpr double kMinArea = 0.08;  // of the image's
constexpr double kMaxArea = 1.0;
constexpr double kMinRatio = 3.0 / 4.0;  // width / height
constexpr double kMaxRatio = 4.0 / 3.0;
constexpr int kTries = 10;

/// Half of `n` ≥ 0, a tie going to the even neighbour: Python's round(n / 2).
std::int64_t half_to_even(std::int64_t n) {
  const std::int64_t half = n / 2;
  return n % 2 == 1 && half % 2 == 1 ? half + 1 : half;
}

/// Python's round() of a length, ties to even; the default rounding mode of the hardware does just that.
int round_length(double length) { return static_cast<int>(std::nearbyint(length)); }

// The distributions of <random> differ between standard libraries; a seed should mean the same views
// everywhere.

/// Uniform in [low, high).
double draw_uniform(double low, double high, std::mt19937_64& generator) {
  const double unit = static_cast<double>(generator() >> 11) * 0x1p-53;
  return low + (high - low) * unit;
}

/// Uniform in 0 … max.
int draw_offset(int max, std::mt19937_64& generator) {
  return std::min(max, static_cast<int>(draw_uniform(0.0, max + 1.0, generator)));
}

std::optional<Box> try_box(int height, int width, std::mt19937_64& generator) {
  const double area = static_cast<double>(height) * width * draw_uniform(kMinArea, kMaxArea, generator);
  const double ratio = std::exp(draw_uniform(std::log(kMinRatio), std::log(kMaxRatio), generator));
  const int box_width = round_length(std::sqrt(area * ratio));
  const int box_height = round_length(std::sqrt(area / ratio));
  if (box_width < 1 || box_width > width || box_height < 1 || box_height > height) return std::nullopt;
  const int top = draw_offset(height - box_height, generator);
  const int left = draw_offset(width - box_width, generator);
  return Box{top, left, box_height, box_width};
}

/// The largest central box whose ratio is allowed.
Box central_box(int height, int width) {
  const double ratio = static_cast<double>(width) / height;
  Box box{0, 0, height, width};
  if (ratio < kMinRatio) box.height = round_length(width / kMinRatio);
  if (ratio > kMaxRatio) box.width = round_length(height * kMaxRatio);
  box.top = (height - box.height) / 2;
  box.left = (width - box.width) / 2;
  return box;
}

Box draw_box(int height, int width, std::mt19937_64& generator) {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    if (const auto box = try_box(height, width, generator)) return *box;
  }
  return central_box(height, width);
}

}  // namespace

Image evaluation_view(const Image& image, int size_px) {
  const auto resized = [&](std::int64_t side, std::int64_t shorter) {  // int(R · side / short) of Python
    return static_cast<std::int64_t>(static_cast<double>(size_px * side) / static_cast<double>(shorter));
  };
  const int shorter = std::min(image.height, image.width);
  ResizeWindow window;
  window.full_height = resized(image.height, shorter);
  window.full_width = resized(image.width, shorter);
  window.top = half_to_even(window.full_height - size_px);
  window.left = half_to_even(window.full_width - size_px);
  window.height = size_px;
  window.width = size_px;
  return resize_bicubic(image, window);
}

TrainingView draw_training_view(int height, int width, std::mt19937_64& generator) {
  const Box box = draw_box(height, width, generator);
  return {box, draw_uniform(0.0, 1.0, generator) < 0.5};
}

Image training_view(const Image& image, const TrainingView& view, int size_px) {
  // A real crop: the resize must not see the pixels around the box.
  const Image resized = resize_bicubic(crop(image, view.box), size_px, size_px);
  return view.flip ? flip_horizontally(resized) : resized;
}

}  // namespace clip_lora::image
