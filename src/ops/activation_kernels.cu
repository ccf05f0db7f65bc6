#include <type_traits>

#include "activation_kernels.hpp"
#include "element.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorsPerThread = 4;  // read before any is computed, so that memory is busy with few threads

/// What a thread moves by one 16-byte access.
template <typename T>
constexpr int kPerVector = 16 / static_cast<int>(sizeof(T));
template <typename T>
struct alignas(16) Vector {
  T values[kPerVector<T>];
};

/// Reads what nobody reads again soon: the L2 cache is left to the result, which the next product reads.
template <typename T>
__device__ __forceinline__ Vector<T> load_once(const T* from, std::int64_t vector) {
  const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(from) + vector);
  return reinterpret_cast<const Vector<T>&>(bits);
}

template <typename T>
__device__ __forceinline__ void store(T* to, std::int64_t vector, const Vector<T>& values) {
  reinterpret_cast<Vector<T>*>(to)[vector] = values;
}

/// The quick functions are exact to float16's and bfloat16's rounding, not to float32's.
template <typename T>
__device__ __forceinline__ float sigmoid(float x) {
  if constexpr (std::is_same_v<T, float>) return 1.0F / (1.0F + expf(-x));
  return __fdividef(1.0F, 1.0F + __expf(-x));
}

/// x · sigmoid(1.702 x)
template <typename T>
struct QuickGelu {
  static constexpr float kSlope = 1.702F;
  static __device__ float value(float h) { return h * sigmoid<T>(kSlope * h); }
  static __device__ float derivative(float h) {
    const float s = sigmoid<T>(kSlope * h);
    return s * (1.0F + kSlope * h * (1.0F - s));
  }
};

/// x · Φ(x)
template <typename T>
struct ExactGelu {
  static constexpr bool kFloat32 = std::is_same_v<T, float>;

  /// exp(−x²/2)
  static __device__ __forceinline__ float bell(float x) {
    return kFloat32 ? expf(-0.5F * x * x) : __expf(-0.5F * x * x);
  }

  /// Φ(x). In low precision by Abramowitz & Stegun's 7.1.26: an error below 1.5e-7 in half of erff's time.
  static __device__ __forceinline__ float distribution(float x, float bell_of_x) {
    if constexpr (kFloat32) return 0.5F * (1.0F + erff(x * 0.70710678F));
    const float t = __fdividef(1.0F, fmaf(0.3275911F * 0.70710678F, fabsf(x), 1.0F));
    float sum = fmaf(t, 1.061405429F, -1.453152027F);
    sum = fmaf(t, sum, 1.421413741F);
    sum = fmaf(t, sum, -0.284496736F);
    sum = fmaf(t, sum, 0.254829592F);
    const float tail = 0.5F * t * sum * bell_of_x;
    return x < 0.0F ? tail : 1.0F - tail;
  }

  static __device__ float value(float x) { return x * distribution(x, bell(x)); }
  static __device__ float derivative(float x) {
    const float bell_of_x = bell(x);
    return distribution(x, bell_of_x) + x * 0.39894228F * bell_of_x;  // φ(x) = exp(−x²/2) / √(2π)
  }
};

/// This thread's first vector. Blocks begin at the end, which the product before wrote last: it is still in
/// L2.
__device__ __forceinline__ std::int64_t first_vector() {
  return static_cast<std::int64_t>(gridDim.x - 1 - blockIdx.x) * (kVectorsPerThread * kThreads) + threadIdx.x;
}

/// The elements that fill no vector are the first block's. Returns where this thread's is, or −1.
template <typename T>
__device__ __forceinline__ std::int64_t rest(std::int64_t count) {
  return blockIdx.x == 0 && threadIdx.x < count % kPerVector<T> ? count - 1 - threadIdx.x : -1;
}

template <typename T, typename Function>
__global__ void __launch_bounds__(kThreads) forward_kernel(const T* h, T* out, std::int64_t count) {
  const std::int64_t first = first_vector(), vectors = count / kPerVector<T>;
  Vector<T> values[kVectorsPerThread];
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const std::int64_t at = first + i * kThreads;
    if (at < vectors) values[i] = load_once(h, at);
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const std::int64_t at = first + i * kThreads;
#pragma unroll
    for (T& value : values[i].values) value = from_float<T>(Function::value(to_float(value)));
    if (at < vectors) store(out, at, values[i]);
  }
  if (const std::int64_t at = rest<T>(count); at >= 0)
    out[at] = from_float<T>(Function::value(to_float(h[at])));
}

template <typename T, typename Function>
__device__ __forceinline__ T multiplied(T gradient, T h) {
  return from_float<T>(to_float(gradient) * Function::derivative(to_float(h)));
}

template <typename T, typename Function>
__global__ void __launch_bounds__(kThreads) backward_kernel(T* d_out, const T* h, std::int64_t count) {
  const std::int64_t first = first_vector(), vectors = count / kPerVector<T>;
  Vector<T> inputs[kVectorsPerThread], gradients[kVectorsPerThread];
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const std::int64_t at = first + i * kThreads;
    if (at >= vectors) continue;
    gradients[i] = load_once(d_out, at);
    inputs[i] = load_once(h, at);
  }
#pragma unroll
  for (int i = 0; i < kVectorsPerThread; ++i) {
    const std::int64_t at = first + i * kThreads;
#pragma unroll
    for (int j = 0; j < kPerVector<T>; ++j) {
      T& gradient = gradients[i].values[j];
      gradient = multiplied<T, Function>(gradient, inputs[i].values[j]);
    }
    if (at < vectors) store(d_out, at, gradients[i]);
  }
  if (const std::int64_t at = rest<T>(count); at >= 0) d_out[at] = multiplied<T, Function>(d_out[at], h[at]);
}

template <typename T>
unsigned blocks_for(std::int64_t count) {
  constexpr std::int64_t kPerBlock = kPerVector<T> * kVectorsPerThread * kThreads;
  return static_cast<unsigned>((count + kPerBlock - 1) / kPerBlock);
}

}  // namespace

void launch_gelu(const void* h, void* out, std::int64_t count, bool quick, Element element,
                 cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    const auto kernel = quick ? forward_kernel<T, QuickGelu<T>> : forward_kernel<T, ExactGelu<T>>;
    kernel<<<blocks_for<T>(count), kThreads, 0, stream>>>(static_cast<const T*>(h), static_cast<T*>(out),
                                                          count);
  });
}

void launch_gelu_backward(void* d_out, const void* h, std::int64_t count, bool quick, Element element,
                          cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    const auto kernel = quick ? backward_kernel<T, QuickGelu<T>> : backward_kernel<T, ExactGelu<T>>;
    kernel<<<blocks_for<T>(count), kThreads, 0, stream>>>(static_cast<T*>(d_out), static_cast<const T*>(h),
                                                          count);
  });
}

}  // namespace clip_lora::ops
