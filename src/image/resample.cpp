#include "clip_lora/image/resample.hpp"

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numbers>
#include <vector>

#include "row_filters.hpp"

namespace clip_lora::image {
namespace {

std::atomic<bool> is_avx2_allowed = true;

constexpr int kChannels = 3;
constexpr double kPi = std::numbers::pi;
constexpr int kFractionBits = 22;  // 32 bits less 8 of the pixel and 2 of head-room for a kernel's overshoot
constexpr std::int32_t kHalf = 1 << (kFractionBits - 1);

/// A filter's kernel by the distance in source pixels, which is zero beyond `support`.
struct Kernel {
  double support;
  double (*weight)(double x);
};

double box_kernel(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear_kernel(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double hamming_kernel(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= kPi;
  return std::sin(x) / x * (double{0.54F} + double{0.46F} * std::cos(x));  // Pillow's constants are float32
}

/// Keys' cubic convolution kernel with a = −0.5.
double bicubic_kernel(double x) {
  constexpr double kA = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * kA;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= kPi;
  return std::sin(x) / x;
}

double lanczos_kernel(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

Kernel kernel_of(Interpolation interpolation) {
  switch (interpolation) {
    case Interpolation::kNearest:
      break;  // has no kernel: see nearest_pixels
    case Interpolation::kBox:
      return {0.5, box_kernel};
    case Interpolation::kBilinear:
      return {1.0, bilinear_kernel};
    case Interpolation::kHamming:
      return {1.0, hamming_kernel};
    case Interpolation::kBicubic:
      return {2.0, bicubic_kernel};
    case Interpolation::kLanczos:
      return {3.0, lanczos_kernel};
  }
  assert(false);
  return {0.5, box_kernel};
}

std::int32_t to_fixed_point(double weight) {
  const double scaled = weight * (1 << kFractionBits);
  return static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

std::uint8_t to_pixel(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kFractionBits, 0, 255));
}

/// The source pixels that one output pixel is a weighted sum of.
struct Taps {
  int first = 0;            ///< index of the first source pixel
  int count = 0;            ///< how many pixels follow each other
  std::size_t weights = 0;  ///< where their weights start in Filter::weights
};

/// One axis of a resize, for the output pixels of a window.
struct Filter {
  std::vector<Taps> taps;             ///< one per output pixel
  std::vector<std::int32_t> weights;  ///< fixed point, kFractionBits fractional bits

  int first() const { return taps.front().first; }
  int end() const { return taps.back().first + taps.back().count; }
};

/// The filter that takes `source_size` pixels to `size`, of which only [offset, offset + count) are wanted.
Filter make_filter(const Kernel& kernel, int source_size, std::int64_t size, std::int64_t offset, int count) {
  const double scale = static_cast<double>(source_size) / static_cast<double>(size);
  const double filter_scale = std::max(scale, 1.0);  // shrinking widens the kernel: that is the antialiasing
  const double support = kernel.support * filter_scale;

  Filter filter;
  filter.taps.reserve(static_cast<std::size_t>(count));
  std::vector<double> exact;
  for (std::int64_t i = offset; i < offset + count; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(centre - support + 0.5)));
    const int end = std::min(source_size, static_cast<int>(std::floor(centre + support + 0.5)));

    exact.clear();
    double sum = 0.0;
    for (int x = first; x < end; ++x) {
      exact.push_back(kernel.weight((x - centre + 0.5) * (1.0 / filter_scale)));
      sum += exact.back();
    }
    filter.taps.push_back({first, end - first, filter.weights.size()});
    for (const double weight : exact) filter.weights.push_back(to_fixed_point(weight / sum));
  }
  return filter;
}

std::size_t offset_of(const Image& image, int row, int column) {
  return (static_cast<std::size_t>(row) * static_cast<std::size_t>(image.width) +
          static_cast<std::size_t>(column)) *
         kChannels;
}

/// A part of a picture, where it lies in memory.
class View {
 public:
  View(const Image& image, const Box& box) : image_(image), box_(box) {
    assert(box.top >= 0 && box.left >= 0 && box.top + box.height <= image.height &&
           box.left + box.width <= image.width);
  }
  explicit View(const Image& image) : View(image, {0, 0, image.height, image.width}) {}

  int height() const { return box_.height; }
  int width() const { return box_.width; }
  std::size_t row_bytes() const { return static_cast<std::size_t>(box_.width) * kChannels; }
  const std::uint8_t* pixel(int row, int column) const {
    return image_.rgb.data() + offset_of(image_, box_.top + row, box_.left + column);
  }
  /// Bytes that may be read from the beginning of a row on: those of the rows below too.
  std::size_t readable_bytes(int row) const {
    return image_.rgb.size() - offset_of(image_, box_.top + row, box_.left);
  }

 private:
  const Image& image_;
  Box box_;
};

Image blank(int height, int width) {
  return {height, width, std::vector<std::uint8_t>(static_cast<std::size_t>(height) * width * kChannels)};
}

/// Filters a row along x.
class PlainRowFilter {
 public:
  explicit PlainRowFilter(const Filter& filter) : filter_(filter) {}

  void apply(const std::uint8_t* row, std::uint8_t* out) const {
    for (const Taps& taps : filter_.taps) {
      const std::uint8_t* pixel = row + static_cast<std::size_t>(taps.first) * kChannels;
      const std::int32_t* weight = filter_.weights.data() + taps.weights;
      std::int32_t red = kHalf;
      std::int32_t green = kHalf;
      std::int32_t blue = kHalf;
      for (int tap = 0; tap < taps.count; ++tap, pixel += kChannels) {
        red += weight[tap] * pixel[0];
        green += weight[tap] * pixel[1];
        blue += weight[tap] * pixel[2];
      }
      *out++ = to_pixel(red);
      *out++ = to_pixel(green);
      *out++ = to_pixel(blue);
    }
  }

 private:
  const Filter& filter_;
};

constexpr std::size_t kReadBehind = 16;  // bytes, as the row filters may

#ifdef __x86_64__
// Multiply-add instructions add up products of 16-bit numbers in pairs, so that a weight is split into
// high · 2^kLowBits + low. The sums are the same integers as without.
constexpr int kLowBits = 12;
constexpr std::int32_t kLowMask = (1 << kLowBits) - 1;

/// The same by AVX2, four source pixels at a time.
class Avx2RowFilter {
 public:
  explicit Avx2RowFilter(const Filter& filter) : taps_(filter.taps) {
    for (const Taps& taps : taps_) {
      const std::int32_t* weight = filter.weights.data() + taps.weights;
      for (int tap = 0; tap < taps.count; tap += kGroup) {
        Group group{};
        for (int i = 0; i < std::min(kGroup, taps.count - tap); ++i) {
          group.high[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(weight[tap + i] >> kLowBits);
          group.low[static_cast<std::size_t>(i)] = static_cast<std::int16_t>(weight[tap + i] & kLowMask);
        }
        groups_.push_back(group);
      }
    }
  }

  /// Reads up to kReadBehind bytes behind the row, without effect.
  __attribute__((target("avx2"))) void apply(const std::uint8_t* row, std::uint8_t* out) const {
    // Bytes of four pixels to 16-bit numbers: r r r r g g g g in the lower half, b b b b · · · · in the upper
    // one.
    const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 6, -1, 9, -1, 1, -1, 4, -1, 7, -1, 10, -1,  //
                                            2, -1, 5, -1, 8, -1, 11, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const Group* group = groups_.data();
    for (const Taps& taps : taps_) {
      const std::uint8_t* pixels = row + static_cast<std::size_t>(taps.first) * kChannels;
      __m256i high = _mm256_setzero_si256();  // per channel the sums of the even and of the odd pairs
      __m256i low = _mm256_setr_epi32(kHalf, 0, kHalf, 0, kHalf, 0, 0, 0);
      for (int tap = 0; tap < taps.count;
           tap += kGroup, pixels += std::ptrdiff_t{kGroup} * kChannels, ++group) {
        const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels));
        const __m256i values = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), spread);
        high = _mm256_add_epi32(high, _mm256_madd_epi16(values, four_times(group->high)));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(values, four_times(group->low)));
      }
      const __m256i sums = _mm256_add_epi32(_mm256_slli_epi32(high, kLowBits), low);
      const __m128i channels =
          _mm_hadd_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
      const __m128i words = _mm_packs_epi32(_mm_srai_epi32(channels, kFractionBits), _mm_setzero_si128());
      const int clamped = _mm_cvtsi128_si32(_mm_packus_epi16(words, _mm_setzero_si128()));  // to 0 … 255
      std::memcpy(out, &clamped, kChannels);
      out += kChannels;
    }
  }

 private:
  static constexpr int kGroup = 4;
  using Weights = std::array<std::int16_t, kGroup>;

  struct Group {
    Weights high;
    Weights low;
  };

  __attribute__((target("avx2"))) static __m256i four_times(const Weights& weights) {
    std::int64_t bits = 0;
    std::memcpy(&bits, weights.data(), sizeof bits);
    return _mm256_set1_epi64x(bits);
  }

  const std::vector<Taps>& taps_;
  std::vector<Group> groups_;
};
#endif

/// Filters the rows [first_row, first_row + rows) of `source` along x: [rows, filter.taps.size()].
template <typename RowFilter>
Image filter_rows(const View& source, const Filter& filter, int first_row, int rows) {
  const RowFilter row_filter(filter);
  std::vector<std::uint8_t> padded(source.row_bytes() + kReadBehind);
  Image result = blank(rows, static_cast<int>(filter.taps.size()));
  for (int row = 0; row < rows; ++row) {
    const std::uint8_t* pixels = source.pixel(first_row + row, 0);
    if (source.readable_bytes(first_row + row) < padded.size()) {  // the last rows of all
      std::copy_n(pixels, source.row_bytes(), padded.data());
      pixels = padded.data();
    }
    row_filter.apply(pixels, result.rgb.data() + offset_of(result, row, 0));
  }
  return result;
}

Image filter_rows(const View& source, const Filter& filter, int first_row, int rows) {
#ifdef __x86_64__
  static const bool has_avx2 = __builtin_cpu_supports("avx2") != 0;
  if (has_avx2 && is_avx2_allowed) return filter_rows<Avx2RowFilter>(source, filter, first_row, rows);
#endif
  return filter_rows<PlainRowFilter>(source, filter, first_row, rows);
}

/// Filters `source`, whose first row is the original's row `first_row`, along y: [filter.taps.size(),
/// source.width].
Image filter_columns(const View& source, const Filter& filter, int first_row) {
  Image result = blank(static_cast<int>(filter.taps.size()), source.width());
  std::vector<std::int32_t> sums(source.row_bytes());
  std::uint8_t* out = result.rgb.data();
  for (const Taps& taps : filter.taps) {
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int tap = 0; tap < taps.count; ++tap) {
      const std::uint8_t* row = source.pixel(taps.first - first_row + tap, 0);
      const std::int32_t weight = filter.weights[taps.weights + static_cast<std::size_t>(tap)];
      for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += weight * row[i];
    }
    std::transform(sums.begin(), sums.end(), out, to_pixel);
    out += sums.size();
  }
  return result;
}

/// Pillow takes the passes in the other order for a picture over a hundred times as tall as wide; the
/// rounding between them makes the order visible.
bool shrinks_vertically_first(const View& source, const ResizeWindow& window) {
  return source.height() > std::int64_t{100} * source.width() && window.full_height < source.height();
}

/// The source pixel of each output pixel [offset, offset + count) of an axis. Pillow adds up the steps, whose
/// rounding shows in the pixels on an edge.
std::vector<int> nearest_pixels(int source_size, std::int64_t size, std::int64_t offset, int count) {
  const double scale = static_cast<double>(source_size) / static_cast<double>(size);
  std::vector<int> pixels;
  pixels.reserve(static_cast<std::size_t>(count));
  double position = scale * 0.5;
  for (std::int64_t i = 0; i < offset + count; ++i, position += scale) {
    if (i >= offset) pixels.push_back(std::min(static_cast<int>(position), source_size - 1));
  }
  return pixels;
}

Image resize_nearest(const View& source, const ResizeWindow& window) {
  const auto rows = nearest_pixels(source.height(), window.full_height, window.top, window.height);
  const auto columns = nearest_pixels(source.width(), window.full_width, window.left, window.width);
  Image result = blank(window.height, window.width);
  std::uint8_t* out = result.rgb.data();
  for (const int row : rows) {
    for (const int column : columns) out = std::copy_n(source.pixel(row, column), kChannels, out);
  }
  return result;
}

Image resize(const View& source, const ResizeWindow& window, Interpolation interpolation) {
  assert(source.height() > 0 && source.width() > 0 && window.height > 0 && window.width > 0);
  if (interpolation == Interpolation::kNearest) return resize_nearest(source, window);
  // An unchanged axis has weights of exactly 0 and 1, so that it needs no case of its own for the values'
  // sake.
  const Kernel kernel = kernel_of(interpolation);
  const Filter columns = make_filter(kernel, source.height(), window.full_height, window.top, window.height);
  const Filter rows = make_filter(kernel, source.width(), window.full_width, window.left, window.width);
  if (shrinks_vertically_first(source, window)) {
    return filter_rows(View(filter_columns(source, columns, 0)), rows, 0, window.height);
  }
  // The vertical pass looks at these rows only, the horizontal pass need not make more.
  const int first_row = columns.first();
  const Image narrow = filter_rows(source, rows, first_row, columns.end() - first_row);
  return filter_columns(View(narrow), columns, first_row);
}

}  // namespace

void allow_avx2(bool allowed) { is_avx2_allowed = allowed; }

Image crop(const Image& image, const Box& box) {
  assert(box.top >= 0 && box.left >= 0 && box.top + box.height <= image.height &&
         box.left + box.width <= image.width);
  Image result = blank(box.height, box.width);
  for (int row = 0; row < box.height; ++row) {
    const auto from =
        image.rgb.begin() + static_cast<std::ptrdiff_t>(offset_of(image, box.top + row, box.left));
    std::copy_n(from, box.width * kChannels,
                result.rgb.begin() + static_cast<std::ptrdiff_t>(offset_of(result, row, 0)));
  }
  return result;
}

Image flip_horizontally(const Image& image) {
  Image result = blank(image.height, image.width);
  for (int row = 0; row < image.height; ++row) {
    for (int column = 0; column < image.width; ++column) {
      std::copy_n(image.rgb.data() + offset_of(image, row, image.width - 1 - column), kChannels,
                  result.rgb.data() + offset_of(result, row, column));
    }
  }
  return result;
}

Image resize(const Image& image, const ResizeWindow& window, Interpolation interpolation) {
  return resize(View(image), window, interpolation);
}

Image resize(const Image& image, const Box& box, int height, int width, Interpolation interpolation) {
  if (box.height == height && box.width == width) return crop(image, box);
  return resize(
      View(image, box),
      {.full_height = height, .full_width = width, .top = 0, .left = 0, .height = height, .width = width},
      interpolation);
}

Image resize(const Image& image, int height, int width, Interpolation interpolation) {
  return resize(image, {0, 0, image.height, image.width}, height, width, interpolation);
}

}  // namespace clip_lora::image
