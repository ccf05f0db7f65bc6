#pragma once

namespace clip_lora::ops {

/// The sum over a block's kThreads threads, a power of two; the same for all of them and in the same order each time.
template <int kThreads, typename Value>
__device__ Value sum_of_block(Value value) {
  __shared__ Value sums[kThreads];
  sums[threadIdx.x] = value;
  __syncthreads();
#pragma unroll
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}

}  // namespace clip_lora::ops
