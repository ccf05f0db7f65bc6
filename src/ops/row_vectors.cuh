#pragma once

#include <cstdint>

#include "element.cuh"
#include "layer_norm_kernels.hpp"

namespace clip_lora::ops {

/// kCount neighbours of a row as they lie in memory, moved by accesses as wide as possible.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount < 16 ? sizeof(T) * kCount : 16) Packed {
  static constexpr int kWords = sizeof(T) * kCount / 4;
  std::uint32_t words[kWords];
};

template <typename T, int kCount>
__device__ __forceinline__ Packed<T, kCount> load_packed(const T* row, int column) {
  return *reinterpret_cast<const Packed<T, kCount>*>(row + column);
}

template <typename T, int kCount>
__device__ __forceinline__ void store_packed(T* row, int column, const Packed<T, kCount>& packed) {
  *reinterpret_cast<Packed<T, kCount>*>(row + column) = packed;
}

__device__ __forceinline__ float2 unpack_word(std::uint32_t word, __half) {
  return __half22float2(*reinterpret_cast<const __half2*>(&word));
}
__device__ __forceinline__ float2 unpack_word(std::uint32_t word, __nv_bfloat16) {
  return {__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000u)};
}
__device__ __forceinline__ std::uint32_t pack_word(float first, float second, __half) {
  const __half2 pair = __floats2half2_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ __forceinline__ std::uint32_t pack_word(float first, float second, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

template <typename T, int kCount>
__device__ __forceinline__ void unpack(const Packed<T, kCount>& packed, float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < Packed<T, kCount>::kWords; ++i) {
    if constexpr (sizeof(T) == 4) {
      values[i] = __uint_as_float(packed.words[i]);
    } else {
      const float2 pair = unpack_word(packed.words[i], T{});
      values[2 * i] = pair.x;
      values[2 * i + 1] = pair.y;
    }
  }
}

template <typename T, int kCount>
__device__ __forceinline__ Packed<T, kCount> pack(const float (&values)[kCount]) {
  Packed<T, kCount> packed;
#pragma unroll
  for (int i = 0; i < Packed<T, kCount>::kWords; ++i) {
    if constexpr (sizeof(T) == 4) {
      packed.words[i] = __float_as_uint(values[i]);
    } else {
      packed.words[i] = pack_word(values[2 * i], values[2 * i + 1], T{});
    }
  }
  return packed;
}

/// A row's address, `stride` elements of T after the one before.
template <typename T>
__device__ __forceinline__ const T* row_of(const void* matrix, std::int64_t row, std::int64_t stride) {
  return static_cast<const T*>(matrix) + row * stride;
}
template <typename T>
__device__ __forceinline__ T* row_of(void* matrix, std::int64_t row, std::int64_t stride) {
  return static_cast<T*>(matrix) + row * stride;
}

/// Sums each of kCount values over the warp; afterwards lane l holds the sum of value l / (32 / kCount).
/// kCount is a power of two ≤ 32. Each step halves the values a lane keeps, which takes kCount shuffles
/// instead of 5 kCount.
template <int kCount>
__device__ __forceinline__ float scattered_warp_sums(float (&values)[kCount]) {
  int offset = 16;
#pragma unroll
  for (int kept = kCount / 2; kept > 0; kept /= 2, offset /= 2) {
    const bool upper = (threadIdx.x & offset) != 0;
#pragma unroll
    for (int i = 0; i < kept; ++i) {
      const float given = upper ? values[i] : values[i + kept];
      const float own = upper ? values[i + kept] : values[i];
      values[i] = own + __shfl_xor_sync(~0u, given, offset);
    }
  }
#pragma unroll
  for (; offset > 0; offset /= 2) values[0] += __shfl_xor_sync(~0u, values[0], offset);
  return values[0];
}

template <int kCount>
__device__ __forceinline__ void warp_sums(float (&values)[kCount]) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) values[i] += __shfl_xor_sync(~0u, values[i], offset);
  }
}

__host__ __device__ constexpr int next_power_of_two(int count) {
  return count <= 1 ? 1 : 2 * next_power_of_two((count + 1) / 2);
}

__device__ __forceinline__ float inverse_keep(const DropoutDraw& draw) {
  return 65536.0f / static_cast<float>(draw.keep);
}

/// The first row of A of an update.
__device__ __forceinline__ int first_row(const int (&ranks)[3], int mask) {
  return mask == 0 ? 0 : mask == 1 ? ranks[0] : ranks[0] + ranks[1];
}

/// sum += a b where `bits` has a 1 among those of `bit`. Written as a predicated instruction, for a select
/// would cost one more and a branch many.
__device__ __forceinline__ void add_where(std::uint32_t bits, std::uint32_t bit, float a, float b,
                                          float& sum) {
  asm("{\n.reg .pred kept;\nsetp.ne.u32 kept, %3, 0;\n@kept fma.rn.f32 %0, %1, %2, %0;\n}"
      : "+f"(sum)
      : "f"(a), "f"(b), "r"(bits & bit));
}

/// The index of the calling thread's warp, known to be the same in all its lanes.
__device__ __forceinline__ int warp_index() {
  return __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 32, 0);
}

/// Copies what all rows of a block share into its shared memory, rows of `row_floats`: A / keep, the rows of
/// mask m at m · kRank …, then the normalisation's weight and bias (null: left out). Place maps a column to
/// its index in a row and keeps four neighbours (of a column that is a multiple of 4) together. Columns
/// beyond the width and ranks that an update lacks are zeros.
template <typename T, int kRank, int kMasks, typename Place>
__device__ __forceinline__ void fill_shared_rows(float* shared, int row_floats, const DownUpdates& down,
                                                 const void* weight, const void* bias, int width,
                                                 const Place& place) {
  constexpr int kRows = kMasks * kRank;
  const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
  const float scale = kRank > 0 ? inverse_keep(down.draw) : 1.0f;
  for (int c = 4 * thread; c < row_floats; c += 4 * threads) {
    float4 a[kRows > 0 ? kRows : 1] = {};  // all on their way before the first is stored
    Packed<T, 4> normalisation[2] = {};
    if (c < width) {
      if constexpr (kRank > 0) {
#pragma unroll
        for (int row = 0; row < kRows; ++row) {
          if (row % kRank >= down.ranks[row / kRank]) continue;
          const int source = first_row(down.ranks, row / kRank) + row % kRank;
          a[row] = *reinterpret_cast<const float4*>(down.a + std::int64_t{source} * width + c);
        }
      }
      if (weight != nullptr) {
        normalisation[0] = load_packed<T, 4>(static_cast<const T*>(weight), c);
        normalisation[1] = load_packed<T, 4>(static_cast<const T*>(bias), c);
      }
    }
    float4* target = reinterpret_cast<float4*>(shared + place(c));
    const int stride = row_floats / 4;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      target[row * stride] = {scale * a[row].x, scale * a[row].y, scale * a[row].z, scale * a[row].w};
    }
#pragma unroll
    for (int i = 0; weight != nullptr && i < 2; ++i) {
      float values[4];
      unpack(normalisation[i], values);
      target[(kRows + i) * stride] = {values[0], values[1], values[2], values[3]};
    }
  }
}

/// The rank that a kernel is instantiated for: 0, 2, 4 or 8, the next above the updates' highest.
inline int padded_rank(const int (&ranks)[3]) {
  int highest = 0;
  for (const int rank : ranks) highest = rank > highest ? rank : highest;
  return highest == 0 ? 0 : highest <= 2 ? 2 : highest <= 4 ? 4 : 8;
}

/// Where column j of the update's columns comes from: row `rank` of A of mask `mask`.
struct UpdateRow {
  int mask, rank;
};
__device__ __forceinline__ UpdateRow update_row(const int (&ranks)[3], int column) {
  if (column < ranks[0]) return {0, column};
  if (column < ranks[0] + ranks[1]) return {1, column - ranks[0]};
  if (column < ranks[0] + ranks[1] + ranks[2]) return {2, column - ranks[0] - ranks[1]};
  return {-1, 0};
}

}  // namespace clip_lora::ops
