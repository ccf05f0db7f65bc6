#include "clip_lora/ops/dropout.hpp"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "mask_words.hpp"

#ifdef CLIP_LORA_WITH_CUDA
#include "dropout_kernels.hpp"
#include "on_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

constexpr std::int64_t kRowsPerTask = 16;

/// Entry b: the bits of byte b as eight factors 0 or 1.
const std::array<std::array<float, 8>, 256>& factors_of_bytes() {
  static const auto table = [] {
    std::array<std::array<float, 8>, 256> factors;
    for (std::size_t byte = 0; byte < 256; ++byte) {
      for (std::size_t bit = 0; bit < 8; ++bit) factors[byte][bit] = static_cast<float>(byte >> bit & 1);
    }
    return factors;
  }();
  return table;
}

void draw_on_cpu(const DropoutDraw& draw, int masks, std::int64_t first_row, at::Tensor& words) {
  const auto words_per_row = static_cast<int>(words.size(1));
  auto* drawn = words.data_ptr<std::int32_t>();
  at::parallel_for(0, words.size(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
    const DropoutKey key = read_key(draw);
    for (std::int64_t row = begin; row < end; ++row) {
      for (int word = 0; word < words_per_row; ++word) {
        std::uint32_t bits[kMostMasks] = {};
        draw_words(draw, key, row_number(draw, first_row + row), word, masks, bits);
        std::int32_t* target = drawn + (row * words_per_row + word) * masks;
        for (int mask = 0; mask < masks; ++mask) target[mask] = static_cast<std::int32_t>(bits[mask]);
      }
    }
  });
}

/// Columns that are kept are multiplied by the factor, the others by 0. row_words: the first of the row's
/// words of the mask, of which each is `masks` after the one before.
template <typename Scalar>
void mask_row(const Scalar* x, const std::int32_t* row_words, std::int64_t masks, int width,
              at::opmath_type<Scalar> factor, Scalar* out) {
  using Wide = at::opmath_type<Scalar>;
  const auto& table = factors_of_bytes();
  for (int vector = 0; 8 * vector < width; ++vector) {
    const auto word = static_cast<std::uint32_t>(row_words[word_of_vector(vector) * masks]);
    const float* kept = table[word >> shift_of_vector(vector) & 255].data();
    const Scalar* source = x + 8 * vector;
    Scalar* target = out + 8 * vector;
    const auto masked = [&](int k) {
      return static_cast<Scalar>(static_cast<Wide>(source[k]) * (factor * static_cast<Wide>(kept[k])));
    };
    if (width - 8 * vector >= 8) {
      for (int k = 0; k < 8; ++k) target[k] = masked(k);
    } else {
      for (int k = 0; k < width - 8 * vector; ++k) target[k] = masked(k);
    }
  }
}

void apply_on_cpu(const at::Tensor& x, const at::Tensor& words, std::int64_t mask, double factor,
                  at::Tensor& out) {
  const std::int64_t masks = words.size(2), words_per_row = words.size(1);
  const auto width = static_cast<int>(x.size(1));
  const auto* drawn = words.data_ptr<std::int32_t>() + mask;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "apply_mask", [&] {
    const auto* source = x.data_ptr<scalar_t>();
    auto* target = out.data_ptr<scalar_t>();
    at::parallel_for(0, x.size(0), kRowsPerTask, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t row = begin; row < end; ++row) {
        mask_row(source + row * x.stride(0), drawn + row * words_per_row * masks, masks, width,
                 static_cast<at::opmath_type<scalar_t>>(factor), target + row * width);
      }
    });
  });
}

std::uint32_t keep_of_65536(const Dropout& dropout) {
  TORCH_CHECK(dropout.rate >= 0 && dropout.rate < 1, "dropout: the rate is in [0, 1), got ", dropout.rate);
  return static_cast<std::uint32_t>(std::max(1L, std::lround((1 - dropout.rate) * 65536)));
}

}  // namespace

double Dropout::keep() const { return keep_of_65536(*this) / 65536.0; }

DropoutDraw draw_of(const Dropout& dropout) {
  DropoutDraw draw;
  draw.keep = keep_of_65536(dropout);
  if (draw.keep == 65536) return draw;
  draw.planes = 16;
  for (std::uint32_t digits = draw.keep; digits % 2 == 0; digits /= 2) --draw.planes;
  TORCH_CHECK(dropout.state.defined() && dropout.state.scalar_type() == at::kLong &&
                  dropout.state.numel() == 2 && dropout.state.is_contiguous(),
              "dropout: state is [2] int64: seed, iteration");
  draw.state = dropout.state.data_ptr<std::int64_t>();
  draw.stream = static_cast<std::uint32_t>(dropout.stream);
  draw.prefix = dropout.prefix;
  draw.skip = dropout.skip;
  return draw;
}

at::Tensor draw_mask_words(const Dropout& dropout, std::int64_t masks, std::int64_t first_row,
                           std::int64_t rows, std::int64_t width) {
  TORCH_CHECK(masks >= 1 && masks <= kMostMasks, "dropout: there are 1 to 3 masks of a row, got ", masks);
  const DropoutDraw draw = draw_of(dropout);
  if (draw.planes == 0) return {};
  const int words_per_row = words_of_width(static_cast<int>(width));
  at::Tensor words = at::empty({rows, words_per_row, masks}, dropout.state.options().dtype(at::kInt));
#ifdef CLIP_LORA_WITH_CUDA
  if (words.is_cuda()) {
    launch_draw_words(draw, first_row, rows, words_per_row, static_cast<int>(masks),
                      words.data_ptr<std::int32_t>(), current_stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return words;
  }
#endif
  draw_on_cpu(draw, static_cast<int>(masks), first_row, words);
  return words;
}

at::Tensor apply_mask(const at::Tensor& x, const at::Tensor& words, std::int64_t mask, double factor) {
  if (!words.defined()) return factor == 1.0 ? x : x * factor;
  TORCH_CHECK(x.dim() == 2 && x.stride(1) == 1 && x.size(0) == words.size(0) && mask < words.size(2),
              "dropout: a mask of ", words.size(0), " rows does not fit x ", x.sizes());
  at::Tensor out = at::empty(x.sizes(), x.options());
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda()) {
    launch_apply_mask(x.const_data_ptr(), x.stride(0), words.data_ptr<std::int32_t>(), static_cast<int>(mask),
                      static_cast<int>(words.size(2)), x.size(0), static_cast<int>(x.size(1)),
                      static_cast<float>(factor), out.data_ptr(), element_of(x), current_stream());
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return out;
  }
#endif
  apply_on_cpu(x, words, mask, factor, out);
  return out;
}

at::Tensor dropout_masks(const Dropout& dropout, std::int64_t masks, std::int64_t rows, std::int64_t width) {
  const auto options =
      (dropout.state.defined() ? dropout.state.options() : at::TensorOptions()).dtype(at::kFloat);
  const at::Tensor words = draw_mask_words(dropout, masks, 0, rows, width);
  if (!words.defined()) return at::ones({masks, rows, width}, options);
  const at::Tensor ones = at::ones({rows, width}, options);
  std::vector<at::Tensor> drawn;
  for (std::int64_t mask = 0; mask < masks; ++mask) drawn.push_back(apply_mask(ones, words, mask, 1.0));
  return at::stack(drawn);
}

}  // namespace clip_lora::ops
