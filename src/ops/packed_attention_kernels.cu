#include "device_limits.hpp"
#include "packed_attention.cuh"
#include "packed_attention_kernels.hpp"

namespace clip_lora::ops {

constexpr int kForwardWarps = 4;

template <typename T, int kChunks>
struct KeysAndValues {
  RowTile<kChunks> keys;
  ColumnTile<kChunks> values;

  __device__ KeysAndValues(const HeadColumns<T>& head, const KeyTiles& tiles, int i)
      : keys(load_rows<kChunks>(head.keys(tiles.first(i), tiles.count(i)))),
        values(load_columns<kChunks>(head.values(tiles.first(i), tiles.count(i)))) {}
};

/// A running softmax: the largest score so far and the sum of 2^(score − largest), for queries g and g + 8.
struct Softmax {
  float largest[2] = {-INFINITY, -INFINITY};
  float sums[2] = {0.0f, 0.0f};

  /// Turns scores, whose base is 2, into weights relative to the new largest; returns what older weights
  /// shrink by.
  __device__ float2 update(ScoreTile& scores) {
    float shrink[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float now = largest[half];
#pragma unroll
      for (int n = 0; n < 2; ++n)
        now = fmaxf(now, fmaxf(scores.values[n][2 * half], scores.values[n][2 * half + 1]));
      now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
      now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
      shrink[half] = power_of_two(largest[half] - now);
      largest[half] = now;
      sums[half] *= shrink[half];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        float& score = scores.values[i / 2][2 * half + i % 2];
        score = power_of_two(score - now);
        sums[half] += score;
      }
    }
    return make_float2(shrink[0], shrink[1]);
  }

  __device__ float total(int half) const {
    float sum = sums[half] + __shfl_xor_sync(~0u, sums[half], 1);
    return sum + __shfl_xor_sync(~0u, sum, 2);
  }
};

namespace {

/// A warp for each tile and head.
template <typename T, int kChunks>
__global__ void __launch_bounds__(32 * kForwardWarps) attend_packed(PackedAttention a, float scale) {
#ifdef CLIP_LORA_TENSOR_CORE
  const int index = blockIdx.x * kForwardWarps + static_cast<int>(threadIdx.x / 32);
  if (index >= a.tiles) return;
  const int head_index = static_cast<int>(blockIdx.y);
  const HeadColumns<T> head(a, head_index);
  const Tile tile = load_tile(a.tile_list, index);
  if (tile.count == 0) return;
  const KeyTiles key_tiles(tile, static_cast<int>(a.prefix));
  const auto queries = load_rows<kChunks>(head.queries(tile.first, tile.count));
  KeysAndValues<T, kChunks> next(head, key_tiles, 0);
  Softmax softmax;
  SumTile<kChunks> sum = {};
#pragma unroll 1
  for (int i = 0; i < key_tiles.total; ++i) {
    const KeysAndValues<T, kChunks> current = next;
    const bool last = i + 1 == key_tiles.total;
    if (!last)
      next = KeysAndValues<T, kChunks>(head, key_tiles, i + 1);  // under way during this one's arithmetic
    const Visible visible = last ? visible_in_own_tile(tile) : visible_keys(key_tiles.count(i));
    ScoreTile scores = multiply_rows<T>(queries, current.keys);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float& score = scores.values[j / 4][j % 4];
      score = visible.has(j % 4 / 2, key_of(j / 4, j)) ? score * (scale * kLog2E) : -INFINITY;
    }
    const float2 shrink = softmax.update(scores);
#pragma unroll
    for (int j = 0; j < 32 * kChunks; ++j) {
      sum.values[j / 32][j / 4 % 8][j % 4] *= j % 4 < 2 ? shrink.x : shrink.y;
    }
    multiply_add<T>(sum, round_scores<T>(scores), current.values);
  }
  const float totals[2] = {softmax.total(0), softmax.total(1)};
  T* const rows = static_cast<T*>(a.attended) + tile.first * head.thirds + head_index * head.width;
  store_rows(rows, head.thirds, tile.count, head.width, sum, {1.0f / totals[0], 1.0f / totals[1]});
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane_row() + 8 * half;
    if (lane_column() != 0 || row >= tile.count) continue;
    a.log_sum_exp[head_index * a.rows + tile.first + row] =
        (softmax.largest[half] + log2f(totals[half])) * (1.0f / kLog2E);
  }
#endif
}

}  // namespace

bool packed_attention_fits(Element element, std::int64_t head_width) {
  return element != Element::kFloat32 && head_width % 8 == 0 && head_width <= 2 * kChunk &&
         device_limits().compute_capability >= 80;
}

void launch_packed_attention(const PackedAttention& a, cudaStream_t stream) {
  with_tiles(a, [&](auto type, auto chunks) {
    const dim3 grid(divide_up(a.tiles, kForwardWarps), static_cast<unsigned>(a.heads));
    attend_packed<decltype(type), chunks><<<grid, 32 * kForwardWarps, 0, stream>>>(a, score_scale(a));
  });
}

}  // namespace clip_lora::ops
