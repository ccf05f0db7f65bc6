#include "clip_lora/image/preprocess.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <sstream>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::image {
namespace {

constexpr double kMaxArea = 1.0;         // of the image's
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

std::optional<Box> try_box(int height, int width, double min_area, std::mt19937_64& generator) {
  const double area = static_cast<double>(height) * width * draw_uniform(min_area, kMaxArea, generator);
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

Box draw_box(int height, int width, double min_area, std::mt19937_64& generator) {
  for (int attempt = 0; attempt < kTries; ++attempt) {
    if (const auto box = try_box(height, width, min_area, generator)) return *box;
  }
  return central_box(height, width);
}

struct Size {
  std::int64_t height = 0;
  std::int64_t width = 0;
};

/// The whole picture's size after the resize.
Size resized_size(const Image& image, const Preprocessing& preprocessing) {
  const int target = preprocessing.resize_px;
  if (preprocessing.resize_mode == ResizeMode::kSquash) return {target, target};
  if (preprocessing.resize_mode == ResizeMode::kLongest) {
    const double ratio = static_cast<double>(std::max(image.height, image.width)) / target;
    return {std::max(1, round_length(image.height / ratio)), std::max(1, round_length(image.width / ratio))};
  }
  const int shorter = std::min(image.height, image.width);
  const auto resized = [&](std::int64_t side) {  // int(target · side / shorter) of Python
    return static_cast<std::int64_t>(static_cast<double>(target * side) / static_cast<double>(shorter));
  };
  return {resized(image.height), resized(image.width)};
}

/// The part of one axis of the resized picture that is seen.
struct Axis {
  std::int64_t first = 0;
  int count = 0;
  int padding = 0;  ///< before it; behind it comes what is still missing
};

Axis central_part(std::int64_t length, int size_px) {
  if (length >= size_px) return {half_to_even(length - size_px), size_px, 0};
  return {0, static_cast<int>(length), (size_px - static_cast<int>(length)) / 2};
}

/// The picture without its border; one that is all border keeps its central pixels.
Image inner_part(const Image& image, int border_px) {
  const int rows = std::min(border_px, (image.height - 1) / 2);
  const int columns = std::min(border_px, (image.width - 1) / 2);
  Image inner{image.height - 2 * rows, image.width - 2 * columns, {}};
  inner.rgb.reserve(static_cast<std::size_t>(inner.height) * static_cast<std::size_t>(inner.width) * 3);
  for (int row = 0; row < inner.height; ++row) {
    const auto begin =
        image.rgb.begin() + (static_cast<std::ptrdiff_t>(rows + row) * image.width + columns) * 3;
    inner.rgb.insert(inner.rgb.end(), begin, begin + static_cast<std::ptrdiff_t>(inner.width) * 3);
  }
  return inner;
}

/// `part` on a square of fill_color.
Image padded(const Image& part, int top, int left, const Preprocessing& preprocessing) {
  const auto size_px = static_cast<std::size_t>(preprocessing.size_px);
  Image square{preprocessing.size_px, preprocessing.size_px,
               std::vector<std::uint8_t>(size_px * size_px * 3)};
  for (std::size_t i = 0; i < square.rgb.size(); ++i) square.rgb[i] = preprocessing.fill_color[i % 3];
  const auto row_bytes = static_cast<std::ptrdiff_t>(part.width) * 3;
  for (int row = 0; row < part.height; ++row) {
    const auto to = (static_cast<std::ptrdiff_t>(top + row) * square.width + left) * 3;
    std::copy_n(part.rgb.begin() + row * row_bytes, row_bytes, square.rgb.begin() + to);
  }
  return square;
}

template <typename Value, std::size_t kCount>
using Names = std::array<std::pair<const char*, Value>, kCount>;

constexpr Names<ResizeMode, 3> kResizeModes = {{{"shortest", ResizeMode::kShortest},
                                                {"longest", ResizeMode::kLongest},
                                                {"squash", ResizeMode::kSquash}}};
constexpr Names<Interpolation, 6> kInterpolations = {{{"nearest", Interpolation::kNearest},
                                                      {"box", Interpolation::kBox},
                                                      {"bilinear", Interpolation::kBilinear},
                                                      {"hamming", Interpolation::kHamming},
                                                      {"bicubic", Interpolation::kBicubic},
                                                      {"lanczos", Interpolation::kLanczos}}};
constexpr Names<Augmentation, 2> kAugmentations = {
    {{"clip_lora", Augmentation{}}, {"open_clip", Augmentation{.smallest_scale = 0.9, .flip = false}}}};

template <typename Value, std::size_t kCount>
std::string name_of(Value value, const Names<Value, kCount>& names) {
  return std::ranges::find(names, value, [](const auto& entry) { return entry.second; })->first;
}

template <typename Value, std::size_t kCount>
Value parse(const std::string& name, const std::string& what, const Names<Value, kCount>& names) {
  std::vector<std::string> known;
  for (const auto& [known_name, value] : names) {
    if (name == known_name) return value;
    known.emplace_back(known_name);
  }
  throw ConfigError("'" + name + "' is no " + what + ", expected one of " + join_capped(known) +
                    did_you_mean(name, known));
}

}  // namespace

std::string to_string(ResizeMode mode) { return name_of(mode, kResizeModes); }

std::string to_string(Interpolation interpolation) { return name_of(interpolation, kInterpolations); }

ResizeMode parse_resize_mode(const std::string& name) { return parse(name, "resize mode", kResizeModes); }

Interpolation parse_interpolation(const std::string& name) {
  return parse(name, "interpolation", kInterpolations);
}

Image evaluation_view(const Image& image, const Preprocessing& preprocessing) {
  if (preprocessing.border_px > 0) {
    Preprocessing without_border = preprocessing;
    without_border.border_px = 0;
    return evaluation_view(inner_part(image, preprocessing.border_px), without_border);
  }
  const int size_px = preprocessing.size_px;
  const Size resized = resized_size(image, preprocessing);
  const Axis rows = central_part(resized.height, size_px);
  const Axis columns = central_part(resized.width, size_px);
  const ResizeWindow window = {.full_height = resized.height,
                               .full_width = resized.width,
                               .top = rows.first,
                               .left = columns.first,
                               .height = rows.count,
                               .width = columns.count};
  Image part = resize(image, window, preprocessing.interpolation);
  if (part.height == size_px && part.width == size_px) return part;
  return padded(part, rows.padding, columns.padding, preprocessing);
}

Image load_evaluation_view(const std::filesystem::path& path, const Preprocessing& preprocessing) {
  return evaluation_view(decode_image(path, preprocessing.orientation), preprocessing);
}

void normalise_chw(std::span<const std::uint8_t> rgb, const Preprocessing& preprocessing, float* out) {
  constexpr std::size_t kChannels = 3;
  // Divided, as torchvision does it: for the usual 1/255 the product would round otherwise.
  const auto divisor = static_cast<float>(1.0 / preprocessing.rescale_factor);
  for (std::size_t channel = 0; channel < kChannels; ++channel) {
    std::array<float, 256> normalised{};
    for (std::size_t value = 0; value < normalised.size(); ++value) {
      normalised[value] = (static_cast<float>(value) / divisor - preprocessing.mean[channel]) /
                          preprocessing.standard_deviation[channel];
    }
    for (std::size_t i = channel; i < rgb.size(); i += kChannels) *out++ = normalised[rgb[i]];
  }
}

Augmentation parse_augmentation(const std::string& name) {
  return parse(name, "augmentation", kAugmentations);
}

std::string to_string(const Augmentation& augmentation) {
  for (const auto& [name, known] : kAugmentations) {
    if (known == augmentation) return name;
  }
  std::ostringstream words;
  words << "scale (" << augmentation.smallest_scale << ", 1), " << (augmentation.flip ? "flip" : "no flip");
  return words.str();
}

TrainingView draw_training_view(int height, int width, std::mt19937_64& generator,
                                const Augmentation& augmentation) {
  const Box box = draw_box(height, width, augmentation.smallest_scale, generator);
  return {box, augmentation.flip && draw_uniform(0.0, 1.0, generator) < 0.5};
}

Image training_view(const Image& image, const TrainingView& view, const Preprocessing& preprocessing) {
  // The resize does not see the pixels around the box.
  const Image resized =
      resize(image, view.box, preprocessing.size_px, preprocessing.size_px, preprocessing.interpolation);
  return view.flip ? flip_horizontally(resized) : resized;
}

}  // namespace clip_lora::image
