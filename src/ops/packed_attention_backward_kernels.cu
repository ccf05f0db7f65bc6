#include <algorithm>

#include "device_limits.hpp"
#include "element.cuh"
#include "packed_attention.cuh"
#include "packed_attention_kernels.hpp"

namespace clip_lora::ops {

/// Of queries g and g + 8: the logarithm (base 2) of the sum of weights, and the product of what was attended
/// to with its gradient.
struct QuerySums {
  float log_sums[2], deltas[2];
};

/// What the backward reads for one head beside its columns of qkv.
template <typename T>
struct BackwardInputs {
  HeadColumns<T> head;
  const T *attended, *d_rows;  // [T, D] at the head's first column
  const float* log_sum_exp;    // [T]

  __device__ BackwardInputs(const PackedAttention& a, int head_index)
      : head(a, head_index),
        attended(static_cast<const T*>(a.attended) + head_index * head.width),
        d_rows(static_cast<const T*>(a.d_rows) + head_index * head.width),
        log_sum_exp(a.log_sum_exp + head_index * a.rows) {}

  __device__ TileRows<T> gradients(int first, int count) const {
    return {d_rows + first * head.thirds, head.thirds, count, head.width};
  }

  __device__ TileRows<T> attended_rows(int first, int count) const {
    return {attended + first * head.thirds, head.thirds, count, head.width};
  }

  template <int kChunks>
  __device__ QuerySums query_sums(int first, int count, const RowTile<kChunks>& gradient_rows,
                                  const RowTile<kChunks>& rows) const {
    QuerySums sums;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = lane_row() + 8 * half;
      sums.log_sums[half] = row < count ? kLog2E * log_sum_exp[first + row] : 0.0f;
    }
    row_products<T>(sums.deltas, gradient_rows, rows);
    return sums;
  }
};

/// Attention weights of queries and keys and the gradients of their scores, unscaled.
struct ScoreGradients {
  FactorTile weights, gradients;
};

template <int kChunks, typename T, typename Rows, typename OtherRows>
__device__ __forceinline__ ScoreGradients score_gradients(const QuerySums& sums, const Rows& queries,
                                                          const Rows& d_rows, const OtherRows& keys,
                                                          const OtherRows& values, const Visible& visible,
                                                          float scale) {
  ScoreTile weights = multiply_rows<T>(load_rows<kChunks>(queries), load_rows<kChunks>(keys));
  ScoreTile gradients = multiply_rows<T>(load_rows<kChunks>(d_rows), load_rows<kChunks>(values));
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int half = j % 4 / 2;
    float& weight = weights.values[j / 4][j % 4];
    float& gradient = gradients.values[j / 4][j % 4];
    weight = visible.has(half, key_of(j / 4, j))
                 ? power_of_two(weight * (scale * kLog2E) - sums.log_sums[half])
                 : 0.0f;
    gradient = weight * (gradient - sums.deltas[half]);
  }
  return {round_scores<T>(weights), round_scores<T>(gradients)};
}

/// Warps of a block of the backward, so many that what they share stays below 48 KiB.
template <int kChunks>
constexpr int kBackwardWarps = 4 / kChunks;

/// Blocks that a multiprocessor is to hold, which bounds the registers: more at a time take longer.
template <int kChunks>
constexpr int kBackwardBlocks = kChunks == 1 ? 3 : 1;

/// Starts copying a tile to shared memory, zeros beyond its rows and the head's width.
template <typename T, int kChunks>
__device__ void start_copy_of(SharedTile<T, kChunks>& to, const TileRows<T>& rows) {
  constexpr int kEights = 8 * kChunks;  // of a row
#pragma unroll
  for (int i = 0; i < kTileRows * kEights / 32; ++i) {
    const int index = i * 32 + static_cast<int>(threadIdx.x % 32);
    const int row = index / kEights, dimension = 8 * (index % kEights);
    const bool inside = rows.has(row, dimension);
    start_copy(static_cast<std::uint32_t>(__cvta_generic_to_shared(to.at(row, dimension))),
               inside ? rows.at(row, dimension) : rows.first, inside);
  }
}

/// What a warp keeps of its tile. Sums over the block's warps take the place of its keys and values.
template <typename T, int kChunks>
struct WarpTiles {
  using Tile = SharedTile<T, kChunks>;
  Tile queries, d_rows;
  union {
    struct {
      Tile keys, values;
    };
    float4 sums[8 * kChunks * 32];
  };
};

template <typename T, int kChunks>
struct BackwardShared {
  WarpTiles<T, kChunks> warps[kBackwardWarps<kChunks>];
  SharedTile<T, kChunks> prefix_keys, prefix_values;
};

/// What the later queries of a long sequence give to the keys and values of a tile of it.
template <typename T, int kChunks>
__device__ void add_later_queries(SumTile<kChunks>& d_keys, SumTile<kChunks>& d_values,
                                  const BackwardInputs<T>& in, const WarpTiles<T, kChunks>& own,
                                  const Tile& tile, float scale) {
#pragma unroll 1
  for (int later = tile.first + kTileRows; later < tile.to; later += kTileRows) {
    const int count = min(kTileRows, tile.to - later);
    const auto queries = in.head.queries(later, count), d_rows = in.gradients(later, count);
    const auto sums = in.query_sums(later, count, load_rows<kChunks>(d_rows),
                                    load_rows<kChunks>(in.attended_rows(later, count)));
    const auto scores = score_gradients<kChunks, T>(sums, queries, d_rows, own.keys, own.values,
                                                    visible_keys(kTileRows), scale);
    multiply_add<T>(d_keys, transpose(scores.gradients), load_columns<kChunks>(queries));
    multiply_add<T>(d_values, transpose(scores.weights), load_columns<kChunks>(d_rows));
  }
}

/// What the earlier keys of a long sequence give to the queries of a tile of it.
template <typename T, int kChunks>
__device__ void add_earlier_keys(SumTile<kChunks>& d_queries, const BackwardInputs<T>& in,
                                 const WarpTiles<T, kChunks>& own, const QuerySums& sums, const Tile& tile,
                                 float scale) {
#pragma unroll 1
  for (int earlier = tile.from; earlier < tile.first; earlier += kTileRows) {
    const auto keys = in.head.keys(earlier, kTileRows);
    const auto scores =
        score_gradients<kChunks, T>(sums, own.queries, own.d_rows, keys, in.head.values(earlier, kTileRows),
                                    visible_keys(kTileRows), scale);
    multiply_add<T>(d_queries, scores.gradients, load_columns<kChunks>(keys));
  }
}

/// Four neighbouring dimensions of a row of a SumTile, the quarter-th of the lane's 8 · kChunks fours.
struct Four {
  int chunk, half, eight, j;

  __device__ explicit Four(int quarter)
      : chunk(quarter / 8), half(quarter / 4 % 2), eight(quarter / 2 % 2), j(4 * (quarter % 2)) {}
  __device__ int row() const { return lane_row() + 8 * half; }
  __device__ int dimension() const { return kChunk * chunk + 32 * eight + 8 * lane_column() + j; }

  template <int kChunks>
  __device__ float4 of(const SumTile<kChunks>& tile) const {
    const auto value = [&](int i) { return tile.values[chunk][j + i][2 * half + eight]; };
    return make_float4(value(0), value(1), value(2), value(3));
  }
};

/// A partial sum of the prefix's gradients, at its first row and the head's first column.
struct PrefixSums {
  float* sums;
  int stride, count, width;

  /// sums = factor · part, or added to what is there.
  __device__ void put(const Four& four, const float4& part, float factor, bool add) const {
    if (four.row() >= count || four.dimension() >= width) return;
    float4* const target = reinterpret_cast<float4*>(sums + four.row() * stride + four.dimension());
    const float4 before = add ? *target : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    *target = make_float4(before.x + factor * part.x, before.y + factor * part.y, before.z + factor * part.z,
                          before.w + factor * part.w);
  }

  template <int kChunks>
  __device__ void put(const SumTile<kChunks>& tile, float factor) const {
#pragma unroll
    for (int quarter = 0; quarter < 8 * kChunks; ++quarter) {
      const Four four(quarter);
      put(four, four.of(tile), factor, false);
    }
  }

  /// The sum of a tile over the block's warps, in their order. Warps begin it when all are done with their
  /// keys and values, and go on when theirs are free again.
  template <typename T, int kChunks>
  __device__ void put_sum(BackwardShared<T, kChunks>& shared, const SumTile<kChunks>& tile, float factor,
                          bool add) const {
    const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
    __syncwarp();
#pragma unroll
    for (int quarter = 0; quarter < 8 * kChunks; ++quarter) {
      shared.warps[warp].sums[quarter * 32 + lane] = Four(quarter).of(tile);
    }
    __syncthreads();
#pragma unroll
    for (int quarter = warp; quarter < 8 * kChunks; quarter += kBackwardWarps<kChunks>) {
      float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (int of = 0; of < kBackwardWarps<kChunks>; ++of) {
        const float4 part = shared.warps[of].sums[quarter * 32 + lane];
        sum.x += part.x, sum.y += part.y, sum.z += part.z, sum.w += part.w;
      }
      put(Four(quarter), sum, factor, add);
    }
    __syncthreads();
  }
};

namespace {

/// A warp for each tile and head, in rounds; the block's share of the prefix's gradients is one partial sum.
/// kLong: some sequence or the prefix has more than one tile. Without, far fewer registers are needed.
template <typename T, int kChunks, bool kLong>
__global__ void __launch_bounds__(32 * kBackwardWarps<kChunks>, kBackwardBlocks<kChunks>)
    attend_packed_backward(PackedAttention a, float scale) {
#ifdef CLIP_LORA_TENSOR_CORE
  constexpr int kWarps = kBackwardWarps<kChunks>;
  __shared__ BackwardShared<T, kChunks> shared;
  const int warp = static_cast<int>(threadIdx.x / 32), head_index = static_cast<int>(blockIdx.y);
  const int prefix = static_cast<int>(a.prefix);
  const BackwardInputs<T> in(a, head_index);
  const HeadColumns<T>& head = in.head;
  const int sum_stride = 2 * head.thirds;
  const auto prefix_sums = [&](unsigned which, int first, int count, int half) {
    float* const sums = a.prefix_sums + static_cast<std::int64_t>(which) * prefix * sum_stride;
    return PrefixSums{sums + first * sum_stride + half * head.thirds + head_index * head.width, sum_stride,
                      count, head.width};
  };
  const auto start_prefix = [&](int first) {
    if (warp == 0) start_copy_of(shared.prefix_keys, head.keys(first, min(kTileRows, prefix - first)));
    if (warp == kWarps - 1)
      start_copy_of(shared.prefix_values, head.values(first, min(kTileRows, prefix - first)));
  };
  WarpTiles<T, kChunks>& own = shared.warps[warp];
  const auto &queries = own.queries, &d_rows = own.d_rows;

#pragma unroll 1
  for (int block_first = blockIdx.x * kWarps; block_first < a.tiles; block_first += gridDim.x * kWarps) {
    const int index = block_first + warp;
    const Tile tile = index < a.tiles ? load_tile(a.tile_list, index) : Tile{0, 0, 0, 0, 0};
    start_copy_of(own.queries, head.queries(tile.first, tile.count));
    start_copy_of(own.keys, head.keys(tile.first, tile.count));
    start_copy_of(own.values, head.values(tile.first, tile.count));
    start_copy_of(own.d_rows, in.gradients(tile.first, tile.count));
    if (prefix > 0) start_prefix(0);
    close_copies();
    const auto attended = load_rows<kChunks>(in.attended_rows(tile.first, tile.count));
    const bool of_prefix = tile.first < prefix;
    T* const d_queries_to = static_cast<T*>(a.d_qkv) + head_index * head.width + tile.first * head.stride;
    T* const d_keys_to = d_queries_to + head.thirds;
    T* const d_values_to = d_keys_to + head.thirds;
    await_copies<0>();
    __syncwarp();

    const QuerySums sums = in.query_sums(tile.first, tile.count, load_rows<kChunks>(d_rows), attended);
    const auto own_scores = score_gradients<kChunks, T>(sums, queries, d_rows, own.keys, own.values,
                                                        visible_in_own_tile(tile), scale);
    {
      SumTile<kChunks> d_keys = {}, d_values = {};
      multiply_add<T>(d_keys, transpose(own_scores.gradients), load_columns<kChunks>(queries));
      multiply_add<T>(d_values, transpose(own_scores.weights), load_columns<kChunks>(d_rows));
      if constexpr (kLong) add_later_queries(d_keys, d_values, in, own, tile, scale);
      if (of_prefix) {  // the last of the partial sums, to which only the prefix's own tiles write
        prefix_sums(gridDim.x, tile.first, tile.count, 0).put(d_keys, scale);
        prefix_sums(gridDim.x, tile.first, tile.count, 1).put(d_values, 1.0f);
      } else {
        store_rows(d_keys_to, head.stride, tile.count, head.width, d_keys, {scale, scale});
        store_rows(d_values_to, head.stride, tile.count, head.width, d_values, {1.0f, 1.0f});
      }
    }
    SumTile<kChunks> d_queries = {};
    const auto store_queries = [&] {
      store_rows(d_queries_to, head.stride, tile.count, head.width, d_queries, {scale, scale});
    };
    multiply_add<T>(d_queries, own_scores.gradients, load_columns<kChunks>(own.keys));
    if constexpr (kLong) add_earlier_keys(d_queries, in, own, sums, tile, scale);
#pragma unroll 1
    for (int first = 0; first < (kLong ? prefix : min(prefix, 1)); first += kTileRows) {
      const int count = min(kTileRows, prefix - first);
      if (first > 0) {
        start_prefix(first);
        close_copies();
        await_copies<0>();
      }
      __syncthreads();
      ScoreGradients scores = {};
      if (!of_prefix) {
        const auto &keys = shared.prefix_keys, &values = shared.prefix_values;
        scores = score_gradients<kChunks, T>(sums, queries, d_rows, keys, values, visible_keys(count), scale);
        multiply_add<T>(d_queries, scores.gradients, load_columns<kChunks>(keys));
      }
      if (first + kTileRows >= prefix) store_queries();
      const bool add = block_first != static_cast<int>(blockIdx.x) * kWarps;
      SumTile<kChunks> d_keys = {};
      multiply_add<T>(d_keys, transpose(scores.gradients), load_columns<kChunks>(queries));
      prefix_sums(blockIdx.x, first, count, 0).put_sum(shared, d_keys, scale, add);
      SumTile<kChunks> d_values = {};
      multiply_add<T>(d_values, transpose(scores.weights), load_columns<kChunks>(d_rows));
      prefix_sums(blockIdx.x, first, count, 1).put_sum(shared, d_values, 1.0f, add);
    }
    if (prefix == 0) store_queries();
    __syncwarp();
  }
#endif
}

constexpr int kSumColumns = 32, kSumLanes = 8;

/// The prefix's keys' and values' gradients: partial sums [sums, P, 2D] added up in a fixed order.
template <typename T>
__global__ void __launch_bounds__(kSumColumns* kSumLanes) add_prefix_sums(PackedAttention a, int sums) {
  __shared__ float shared[kSumLanes][kSumColumns];
  const std::int64_t width = 2 * a.heads * a.head_width, size = a.prefix * width;
  const std::int64_t element = static_cast<std::int64_t>(blockIdx.x) * kSumColumns + threadIdx.x;
  float sum = 0.0f;
  if (element < size) {
#pragma unroll 4
    for (int i = static_cast<int>(threadIdx.y); i < sums; i += kSumLanes)
      sum += a.prefix_sums[i * size + element];
  }
  shared[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || element >= size) return;
#pragma unroll
  for (int lane = 1; lane < kSumLanes; ++lane) sum += shared[lane][threadIdx.x];
  const std::int64_t row = element / width, column = element % width;
  static_cast<T*>(a.d_qkv)[row * (width + width / 2) + width / 2 + column] = from_float<T>(sum);
}

int backward_warps(std::int64_t head_width) {
  return head_width <= kChunk ? kBackwardWarps<1> : kBackwardWarps<2>;
}

/// Enough blocks to fill the device more than twice over; more would only make more partial sums.
int backward_blocks(std::int64_t tiles, std::int64_t heads, std::int64_t head_width) {
  const int most = std::max(1, divide_up(8 * device_limits().multiprocessors, heads));
  return std::min(most, divide_up(tiles, backward_warps(head_width)));
}

}  // namespace

std::int64_t packed_attention_prefix_sums(const PackedAttention& a) {
  return backward_blocks(a.tiles, a.heads, a.head_width) + 1;
}

void launch_packed_attention_backward(const PackedAttention& a, cudaStream_t stream) {
  const int blocks = backward_blocks(a.tiles, a.heads, a.head_width);
  with_tiles(a, [&](auto type, auto chunks) {
    using T = decltype(type);
    const bool is_long = a.prefix > kTileRows || a.longest > kTileRows;
    const auto kernel =
        is_long ? attend_packed_backward<T, chunks, true> : attend_packed_backward<T, chunks, false>;
    const dim3 grid(blocks, static_cast<unsigned>(a.heads));
    kernel<<<grid, 32 * kBackwardWarps<chunks>, 0, stream>>>(a, score_scale(a));
    if (a.prefix == 0) return;
    const int sum_blocks = divide_up(a.prefix * 2 * a.heads * a.head_width, kSumColumns);
    add_prefix_sums<decltype(type)><<<sum_blocks, dim3(kSumColumns, kSumLanes), 0, stream>>>(a, blocks + 1);
  });
}

}  // namespace clip_lora::ops
