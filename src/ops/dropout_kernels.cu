#include "dropout_kernels.hpp"
#include "element.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kThreads = 256;

unsigned blocks_for(std::int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

__global__ void draw_words_kernel(const DropoutDraw draw, std::int64_t first_row, std::int64_t rows,
                                  int words, int masks, std::int32_t* drawn) {
  const std::int64_t item = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= rows * words) return;
  std::uint32_t bits[3];
  draw_words(draw, read_key(draw), row_number(draw, first_row + item / words), static_cast<int>(item % words),
             masks, bits);
  for (int mask = 0; mask < 3; ++mask) {
    if (mask < masks) drawn[item * masks + mask] = static_cast<std::int32_t>(bits[mask]);
  }
}

template <typename T>
__global__ void apply_mask_kernel(const T* x, std::int64_t x_stride, const std::int32_t* drawn, int mask,
                                  int masks, std::int64_t rows, int width, float factor, T* out) {
  const int vectors = (width + 7) / 8;
  const std::int64_t item = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= rows * vectors) return;
  const std::int64_t row = item / vectors;
  const int vector = static_cast<int>(item % vectors);
  const std::int32_t word = drawn[(row * words_of_width(width) + word_of_vector(vector)) * masks + mask];
  const int bits = word >> shift_of_vector(vector);
  x += row * x_stride + 8 * vector;
  out += row * width + 8 * vector;
  const int count = min(8, width - 8 * vector);
  for (int k = 0; k < count; ++k) {
    out[k] = from_float<T>((bits >> k & 1) != 0 ? factor * to_float(x[k]) : 0.0f);
  }
}

}  // namespace

void launch_draw_words(const DropoutDraw& draw, std::int64_t first_row, std::int64_t rows, int words,
                       int masks, std::int32_t* drawn, cudaStream_t stream) {
  if (rows == 0) return;
  draw_words_kernel<<<blocks_for(rows * words), kThreads, 0, stream>>>(draw, first_row, rows, words, masks,
                                                                       drawn);
}

void launch_apply_mask(const void* x, std::int64_t x_stride, const std::int32_t* drawn, int mask, int masks,
                       std::int64_t rows, int width, float factor, void* out, Element element,
                       cudaStream_t stream) {
  if (rows == 0) return;
  with_type(element, [&](auto type) {
    using T = decltype(type);
    apply_mask_kernel<T><<<blocks_for(rows * ((width + 7) / 8)), kThreads, 0, stream>>>(
        static_cast<const T*>(x), x_stride, drawn, mask, masks, rows, width, factor, static_cast<T*>(out));
  });
}

}  // namespace clip_lora::ops
