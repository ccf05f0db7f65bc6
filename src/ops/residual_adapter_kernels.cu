#include "block_sum.cuh"
#include "element.cuh"
#include "residual_adapter_kernels.hpp"

namespace clip_lora::ops {
namespace {

constexpr int kThreads = 256;

/// Vectors are of eight values.
template <typename T>
__device__ __forceinline__ Eight<T> load(const T* from, std::int64_t vector) {
  return reinterpret_cast<const Eight<T>*>(from)[vector];
}
template <typename T>
__device__ __forceinline__ void store(T* to, std::int64_t vector, const Eight<T>& values) {
  reinterpret_cast<Eight<T>*>(to)[vector] = values;
}

__device__ __forceinline__ std::int64_t own_vector() {
  return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    add_change_kernel(T* change, const T* z, const T* residual, const float* scale, const float* factors,
                      std::int64_t vectors, int vectors_per_row) {
  const std::int64_t at = own_vector();
  if (at >= vectors) return;
  const float factor = factors == nullptr ? *scale : *scale * factors[at / vectors_per_row];
  const Eight<T> kept = load(z, at), rest = load(residual, at);
  Eight<T> values = load(change, at);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float h = fmaf(factor, to_float(values.values[i]), to_float(kept.values[i]));
    values.values[i] = from_float<T>(h + to_float(rest.values[i]));  // the residual last, see add_adapted
  }
  store(change, at, values);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    scale_rows_kernel(const T* x, const float* factors, T* out, std::int64_t vectors, int vectors_per_row) {
  const std::int64_t at = own_vector();
  if (at >= vectors) return;
  const float factor = factors[at / vectors_per_row];
  Eight<T> values = load(x, at);
#pragma unroll
  for (T& value : values.values) value = from_float<T>(factor * to_float(value));
  store(out, at, values);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    scale_weight_kernel(const T* weight, const float* scale, T* out, std::int64_t vectors) {
  const std::int64_t at = own_vector();
  if (at >= vectors) return;
  Eight<T> values = load(weight, at);
#pragma unroll
  for (T& value : values.values) value = from_float<T>(*scale * to_float(value));
  store(out, at, values);
}

/// Every block sums its values in the same order each time.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    adapter_gradient_kernel(const float* product, const T* weight, const float* scale, float* d_weight,
                            float* parts, std::int64_t count, bool add) {
  const float s = *scale;
  float sum = 0.0F;
  for (std::int64_t at = own_vector(); at < count / 8;
       at += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    const Eight<float> products = load(product, at);
    const Eight<T> weights = load(weight, at);
    Eight<float> gradients = add ? load(d_weight, at) : Eight<float>{};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum = fmaf(to_float(weights.values[i]), products.values[i], sum);
      gradients.values[i] = fmaf(s, products.values[i], gradients.values[i]);
    }
    store(d_weight, at, gradients);
  }
  sum = sum_of_block<kThreads>(sum);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

unsigned blocks_for(std::int64_t vectors) {
  return static_cast<unsigned>((vectors + kThreads - 1) / kThreads);
}

}  // namespace

void launch_add_change(void* change, const void* z, const void* residual, const float* scale,
                       const float* factors, std::int64_t rows, std::int64_t width, Element element,
                       cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    const std::int64_t per_row = width / 8, vectors = rows * per_row;
    add_change_kernel<T><<<blocks_for(vectors), kThreads, 0, stream>>>(
        static_cast<T*>(change), static_cast<const T*>(z), static_cast<const T*>(residual), scale, factors,
        vectors, static_cast<int>(per_row));
  });
}

void launch_scale_rows(const void* x, const float* factors, void* out, std::int64_t rows, std::int64_t width,
                       Element element, cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    const std::int64_t per_row = width / 8, vectors = rows * per_row;
    scale_rows_kernel<T><<<blocks_for(vectors), kThreads, 0, stream>>>(
        static_cast<const T*>(x), factors, static_cast<T*>(out), vectors, static_cast<int>(per_row));
  });
}

void launch_scale_weight(const void* weight, const float* scale, void* out, std::int64_t count,
                         Element element, cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    const std::int64_t vectors = count / 8;
    scale_weight_kernel<T><<<blocks_for(vectors), kThreads, 0, stream>>>(static_cast<const T*>(weight), scale,
                                                                         static_cast<T*>(out), vectors);
  });
}

void launch_adapter_gradient(const float* product, const void* weight, const float* scale, float* d_weight,
                             float* parts, std::int64_t count, bool add, Element element,
                             cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    adapter_gradient_kernel<T><<<kAdapterGradientBlocks, kThreads, 0, stream>>>(
        product, static_cast<const T*>(weight), scale, d_weight, parts, count, add);
  });
}

}  // namespace clip_lora::ops
