#include <algorithm>
#include <cmath>

#include "device_limits.hpp"
#include "image_attention.cuh"
#include "image_attention_kernels.hpp"

namespace clip_lora::ops {
namespace {

/// What a warp knows of its 16 queries after some of the keys; a lane has queries g and g + 8.
template <int kWidth>
struct Attending {
  Accumulator sums[kWidth / 8];  // of exponentials times values
  float reference[2];            // exponentials are 2^(score - reference), the same in a row's four lanes
  float total[2];                // of this lane's exponentials

  __device__ __forceinline__ void reset() {
    reference[0] = reference[1] = -INFINITY;
    total[0] = total[1] = 0.0F;
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) sums[i / 4][i % 4] = 0.0F;
  }
};

/// Exponentials may exceed 1 by this power of two before a row's reference is raised to its maximum: that is
/// rare, and 2^8 leaves room in float16.
[[maybe_unused]] constexpr float kSlack = 8.0F;

template <int kWidth>
__device__ __forceinline__ void raise_reference(Attending<kWidth>& state, int half, float maximum) {
  const float reference = fmaxf(state.reference[half], maximum_of_row(maximum));
  const float factor = power_of_two(state.reference[half] - reference);
  state.reference[half] = reference;
  state.total[half] *= factor;
#pragma unroll
  for (int column = 0; column < kWidth / 8; ++column) {
    state.sums[column][2 * half] *= factor;
    state.sums[column][2 * half + 1] *= factor;
  }
}

/// Scores of 16 keys, the first of which is key `first`, from -infinity where beyond the last key.
[[maybe_unused]] __device__ __forceinline__ void mask_scores(Accumulator (&scores)[2], int first,
                                                             int length) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if (first + i / 4 * 8 + lane() % 4 * 2 + i % 2 >= length) scores[i / 4][i % 4] = -INFINITY;
  }
}

/// Attends to kCount tiles of 16 keys and values, the first of which is key `first`.
template <typename T, int kWidth, int kCount>
__device__ __forceinline__ void attend_to(Attending<kWidth>& state, const LeftFragment (&q)[kWidth / 16],
                                          std::uint32_t keys, std::uint32_t values, int first, int length,
                                          float scale) {
  Accumulator scores[kCount][2] = {};
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
#pragma unroll
    for (int i = 0; i < kCount; ++i)
      add_scores_step<T, kWidth>(scores[i], q, keys + i * kTileBytes<kWidth>, step);
  }
  if (first + kCount * kTileRows > length) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) mask_scores(scores[i], first + i * kTileRows, length);
  }
  float maximum[2] = {-INFINITY, -INFINITY};
#pragma unroll
  for (int i = 0; i < kCount * 8; ++i) {
    maximum[i / 2 % 2] = fmaxf(maximum[i / 2 % 2], scores[i / 8][i / 4 % 2][i % 4]);
  }
  maximum[0] *= scale;
  maximum[1] *= scale;
  const bool high = maximum[0] > state.reference[0] + kSlack || maximum[1] > state.reference[1] + kSlack;
  if (__any_sync(0xFFFFFFFFU, high)) {
    raise_reference(state, 0, maximum[0]);
    raise_reference(state, 1, maximum[1]);
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float& score = scores[i][j / 4][j % 4];
      score = power_of_two(fmaf(score, scale, -state.reference[j / 2 % 2]));
      state.total[j / 2 % 2] += score;
    }
    LeftFragment exponentials;
    to_left<T>(exponentials, scores[i]);
    add_products<T, kWidth>(state.sums, exponentials, values + i * kTileBytes<kWidth>);
  }
}

/// Stores the rows and log_sum_exp of the warp's queries, the first of which is `first`.
template <typename T, int kWidth>
__device__ __forceinline__ void store(const Attending<kWidth>& state, const Head<T>& head, int first,
                                      unsigned char* own) {
  float inverse[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float total = sum_of_row(state.total[half]);
    inverse[half] = __fdividef(1.0F, total);
    const int row = first + half * 8 + lane() / 4;
    if (lane() % 4 == 0 && row < head.q.length) {
      head.log_sum_exp[row] = state.reference[half] * kLn2 + __logf(total);
    }
  }
  store_tile<T, kWidth>(own, head.rows, first, state.sums, inverse[0], inverse[1]);
}

/// A unit is 16 queries for each warp; keys and values pass through shared memory. After those there, a tile
/// of each warp's own, by way of which its queries arrive and its rows leave.
template <typename T, int kWidth, int kThreads>
__global__ void __launch_bounds__(kThreads)
    attend(const ImageAttention attention, const AttentionTiling tiling, const int units) {
#ifdef CLIP_LORA_TENSOR_CORE
  extern __shared__ __align__(16) unsigned char shared_memory[];
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const auto length = static_cast<int>(attention.length);
  const float scale = score_scale(attention) * kLog2E;
  const std::uint32_t matrix_bytes = tiling.block * kPitch<kWidth> * 2;
  const std::uint32_t own = 4 * matrix_bytes + warp() * kTileBytes<kWidth>;
  const auto first_query = [&](int unit) {
    return (unit % tiling.parts * tiling.warps + warp()) * kTileRows;
  };
  const auto head_of_unit = [&](int unit) { return head_of<T, kWidth>(attention, unit / tiling.parts); };

  LeftFragment q[kWidth / 16];
  Attending<kWidth> state;
  const auto start_queries = [&](int unit) {
    start_tile<T, kWidth>(shared + own, head_of_unit(unit).q, first_query(unit));
    close_copies();
  };
  const auto start = [&](int unit, int first, int stage) {
    const Head<T> head = head_of_unit(unit);
    const std::uint32_t to = shared + stage * 2 * matrix_bytes;
    const int count = min(tiling.block, (length - first + kTileRows - 1) / kTileRows * kTileRows);
    start_block<T, kWidth>(to, head.k, first, count);
    start_block<T, kWidth>(to + matrix_bytes, head.v, first, count);
  };
  const auto use = [&](int unit, int first, int stage) {
    if (first == 0) {
      load_tile<kWidth>(q, shared + own);
      state.reset();
    }
    std::uint32_t keys = shared + stage * 2 * matrix_bytes + offset_for_transpose<kWidth>();
    std::uint32_t values = shared + (stage * 2 + 1) * matrix_bytes + offset_for_product<kWidth>();
    const int end = first_query(unit) < length ? min(first + tiling.block, length) : 0;
    int key = first;
    for (; key + kTileRows < end; key += 2 * kTileRows) {
      attend_to<T, kWidth, 2>(state, q, keys, values, key, length, scale);
      keys += 2 * kTileBytes<kWidth>;
      values += 2 * kTileBytes<kWidth>;
    }
    if (key < end) attend_to<T, kWidth, 1>(state, q, keys, values, key, length, scale);
    if (first + tiling.block < length) return;
    store<T, kWidth>(state, head_of_unit(unit), first_query(unit), shared_memory + own);
    __syncwarp();
    const int next = unit + static_cast<int>(gridDim.x);
    if (next < units) start_queries(next);
  };
  start_queries(static_cast<int>(blockIdx.x));
  for_each_block(units, length, tiling.block, start, use);
#endif
}

template <typename T, int kWidth, int kThreads>
void launch(const ImageAttention& attention, const AttentionTiling& tiling, const SharedUse& use,
            cudaStream_t stream) {
  const auto kernel = attend<T, kWidth, kThreads>;
  const auto units = static_cast<int>(attention.images * attention.heads) * tiling.parts;
  const int bytes = shared_bytes<kWidth>(tiling, 2, use);
  const int blocks = resident_blocks(kernel, tiling.warps * 32, bytes, units);
  kernel<<<blocks, tiling.warps * 32, bytes, stream>>>(attention, tiling, units);
}

/// kThreads bounds a thread block, and so the registers of a thread: 128, 96 and 168 for 512, 640 and 384
/// threads.
template <typename T, int kWidth, int kThreads>
void launch(const ImageAttention& attention, cudaStream_t stream) {
  const SharedUse use{device_limits().shared_memory_bytes, 1, 0, true};
  launch<T, kWidth, kThreads>(attention, tile_head<kWidth>(attention, kThreads / 32, use), use, stream);
}

}  // namespace

bool image_attention_fits(const ImageAttention& attention) {
  return tensor_core_takes(attention) && aligned(attention.qkv) && aligned(attention.rows);
}

void launch_image_attention(const ImageAttention& attention, cudaStream_t stream) {
  with_width(attention, [&](auto element, auto width) {
    using T = decltype(element);
    if constexpr (width() > 64) {
      launch<T, width(), 384>(attention, stream);
    } else if (attention.length > 256 && attention.length <= 320) {  // so that one thread block has a head
      launch<T, width(), 640>(attention, stream);
    } else {
      launch<T, width(), 512>(attention, stream);
    }
  });
}

}  // namespace clip_lora::ops
