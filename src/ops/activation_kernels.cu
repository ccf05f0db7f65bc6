#include "activation_kernels.hpp"
#include "element.cuh"
#include "gelu.cuh"

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
