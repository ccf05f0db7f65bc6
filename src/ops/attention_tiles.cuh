#pragma once

#include <cstdint>

#include "tensor_core.cuh"

namespace clip_lora::ops {

// Tensor-core products of tiles of 16 rows (queries or keys of one head), held by one warp. Both loads below
// read 16 bytes per lane, in the order that mma.sync wants: a contraction may take its terms in any order,
// and which column of a result is which of the head's dimensions is free too. With g = lane / 4, t = lane %
// 4, and the head's dimensions in chunks of 64, of which those beyond the head's width read as zero:

constexpr int kTileRows = 16;
constexpr int kChunk = 64;

/// Rows g and g + 8; of each chunk the lane holds dimensions 8t … 8t + 7, then 32 + 8t … 32 + 8t + 7, so that
/// four lanes write whole sectors of memory. Contracted over dimensions.
template <int kChunks>
struct RowTile {
  std::uint32_t pairs[2][8 * kChunks];
};

/// Rows 2t, 2t + 1, 2t + 8, 2t + 9; of each chunk eight dimensions from 32 (g % 2) + 8 (g / 2). Contracted
/// over rows.
template <int kChunks>
struct ColumnTile {
  std::uint32_t pairs[kChunks][8][2];
};

/// A float32 result [16, dimensions], of which a lane holds what it holds of a RowTile: of chunk c and row g
/// + 8h dimension 32e + 8t + j in [c][j][2h + e].
template <int kChunks>
struct SumTile {
  float values[kChunks][8][4];
};

/// Scores of 16 queries (rows g, g + 8) and 16 keys: of query g + 8h and key 8n + 2t + e in [n][2h + e].
struct ScoreTile {
  float values[2][4];
};

/// A ScoreTile rounded to 16 bits, as the left factor of a product contracted over keys.
struct FactorTile {
  LeftFragment pairs;
};

__device__ __forceinline__ int lane_row() { return (threadIdx.x & 31) >> 2; }
__device__ __forceinline__ int lane_column() { return threadIdx.x & 3; }

__device__ __forceinline__ uint4 load_eight(const void* address, bool inside) {
  return inside ? *static_cast<const uint4*>(address) : make_uint4(0, 0, 0, 0);
}

/// The first dimension of a lane's `eight`-th eight of a RowTile's row.
__device__ __forceinline__ int eight_of_row(int eight) {
  return kChunk * (eight / 2) + 32 * (eight % 2) + 8 * lane_column();
}

/// A tile in memory: `count` rows of `width` dimensions, read as zero beyond.
template <typename T>
struct TileRows {
  const T* first;
  int stride, count, width;

  __device__ bool has(int row, int dimension) const { return row < count && dimension < width; }
  __device__ const T* at(int row, int dimension) const { return first + row * stride + dimension; }
};

/// A tile in shared memory, 16 rows of full chunks. Eights of dimensions change places within a chunk,
/// differently in each row, so that neither way of reading them meets bank conflicts.
template <typename T, int kChunks>
struct SharedTile {
  alignas(16) T values[kTileRows * kChunks * kChunk];

  __device__ static bool has(int, int) { return true; }
  __device__ const T* at(int row, int dimension) const {
    const int place = (row & 1) << 2 | (row >> 1 & 3);
    return values + row * kChunks * kChunk + (dimension ^ 8 * place);
  }
};

template <int kChunks, typename Rows>
__device__ __forceinline__ RowTile<kChunks> load_rows(const Rows& rows) {
  RowTile<kChunks> tile;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane_row() + 8 * half;
#pragma unroll
    for (int eight = 0; eight < 2 * kChunks; ++eight) {
      const int dimension = eight_of_row(eight);
      const uint4 loaded = load_eight(rows.at(row, dimension), rows.has(row, dimension));
      tile.pairs[half][4 * eight + 0] = loaded.x;
      tile.pairs[half][4 * eight + 1] = loaded.y;
      tile.pairs[half][4 * eight + 2] = loaded.z;
      tile.pairs[half][4 * eight + 3] = loaded.w;
    }
  }
  return tile;
}

template <int kChunks, typename Rows>
__device__ __forceinline__ ColumnTile<kChunks> load_columns(const Rows& rows) {
  ColumnTile<kChunks> tile;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int dimension = kChunk * chunk + 32 * (lane_row() % 2) + 8 * (lane_row() / 2);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = 2 * lane_column() + 8 * half;
      const uint4 even = load_eight(rows.at(row, dimension), rows.has(row, dimension));
      const uint4 odd = load_eight(rows.at(row + 1, dimension), rows.has(row + 1, dimension));
      const std::uint32_t evens[4] = {even.x, even.y, even.z, even.w};
      const std::uint32_t odds[4] = {odd.x, odd.y, odd.z, odd.w};
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        tile.pairs[chunk][2 * pair][half] = __byte_perm(evens[pair], odds[pair], 0x5410);
        tile.pairs[chunk][2 * pair + 1][half] = __byte_perm(evens[pair], odds[pair], 0x7632);
      }
    }
  }
  return tile;
}

/// queries [16, width] · keysᵀ [width, 16]
template <typename T, int kChunks>
__device__ __forceinline__ ScoreTile multiply_rows(const RowTile<kChunks>& queries,
                                                   const RowTile<kChunks>& keys) {
  ScoreTile scores = {};
#pragma unroll
  for (int step = 0; step < 4 * kChunks; ++step) {
    const LeftFragment left = {queries.pairs[0][2 * step], queries.pairs[1][2 * step],
                               queries.pairs[0][2 * step + 1], queries.pairs[1][2 * step + 1]};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      multiply_add<T>(scores.values[half], left, keys.pairs[half][2 * step], keys.pairs[half][2 * step + 1]);
    }
  }
  return scores;
}

/// sum [16, width] += factor [16, 16] · rows [16, width]
template <typename T, int kChunks>
__device__ __forceinline__ void multiply_add(SumTile<kChunks>& sum, const FactorTile& factor,
                                             const ColumnTile<kChunks>& rows) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      multiply_add<T>(sum.values[chunk][j], factor.pairs, rows.pairs[chunk][j][0], rows.pairs[chunk][j][1]);
    }
  }
}

template <typename T>
__device__ __forceinline__ FactorTile round_scores(const ScoreTile& scores) {
  const auto& s = scores.values;
  return {{pack<T>(s[0][0], s[0][1]), pack<T>(s[0][2], s[0][3]), pack<T>(s[1][0], s[1][1]),
           pack<T>(s[1][2], s[1][3])}};
}

__device__ __forceinline__ std::uint32_t transpose_eight(std::uint32_t rows) {
  std::uint32_t columns = 0;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(columns) : "r"(rows));
  return columns;
}

/// [queries, keys] → [keys, queries]
__device__ __forceinline__ FactorTile transpose(const FactorTile& factor) {
  const auto& pairs = factor.pairs;
  return {{transpose_eight(pairs[0]), transpose_eight(pairs[2]), transpose_eight(pairs[1]),
           transpose_eight(pairs[3])}};
}

/// products[h]: of row g + 8h of a and of b. All products of rows are cheaper than these alone would be
/// without tensor cores; a lane takes those on the diagonal from the one of its four neighbours that has
/// them.
template <typename T, int kChunks>
__device__ __forceinline__ void row_products(float (&products)[2], const RowTile<kChunks>& a,
                                             const RowTile<kChunks>& b) {
  const ScoreTile all = multiply_rows<T>(a, b);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float* const pair = all.values[half] + 2 * half;
    products[half] = __shfl_sync(~0u, lane_row() % 2 == 0 ? pair[0] : pair[1], lane_row() / 2, 4);
  }
}

/// Writes rows below `count`, row g + 8h multiplied by scales[h].
template <typename T, int kChunks>
__device__ __forceinline__ void store_rows(T* rows, int stride, int count, int width,
                                           const SumTile<kChunks>& sum, const float (&scales)[2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane_row() + 8 * half;
#pragma unroll
    for (int eight = 0; eight < 2 * kChunks; ++eight) {
      const int dimension = eight_of_row(eight);
      const auto value = [&](int j) { return sum.values[eight / 2][j][2 * half + eight % 2] * scales[half]; };
      const uint4 packed = make_uint4(pack<T>(value(0), value(1)), pack<T>(value(2), value(3)),
                                      pack<T>(value(4), value(5)), pack<T>(value(6), value(7)));
      if (row < count && dimension < width)
        *reinterpret_cast<uint4*>(rows + row * stride + dimension) = packed;
    }
  }
}

}  // namespace clip_lora::ops
