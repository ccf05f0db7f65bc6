#pragma once

#include <cmath>
#include <type_traits>

#include "attention_tiles.cuh"
#include "packed_attention_kernels.hpp"

// What the forward and the backward of packed attention share: a warp works on the queries of one tile and
// head, and goes through the keys that they see, tile by tile.
namespace clip_lora::ops {

constexpr float kLog2E = 1.4426950408889634f;

/// A row of Packing::tiles. Its keys among own rows are `from` … its last row, in causal order; later queries
/// of the same sequence are the rows from its end to `to`.
struct Tile {
  int first, count, from, to;
  std::uint32_t starts;  // bit i: row first + i begins a sequence

  /// The first row, counted from `first`, of the sequence of row `row`.
  __device__ int start_of(int row) const { return max(0, 31 - __clz(starts & ((2u << row) - 1u))); }
};

inline __device__ Tile load_tile(const std::int32_t* list, int index) {
  const std::int32_t* entry = list + 5 * static_cast<std::int64_t>(index);
  return {entry[0], entry[1], entry[2], entry[3], static_cast<std::uint32_t>(entry[4])};
}

/// One head's columns of qkv.
template <typename T>
struct HeadColumns {
  const T* qkv;
  int stride, thirds, width;  // 3D, D, and the head's

  __device__ HeadColumns(const PackedAttention& a, int head)
      : qkv(static_cast<const T*>(a.qkv) + head * a.head_width),
        stride(static_cast<int>(3 * a.heads * a.head_width)),
        thirds(static_cast<int>(a.heads * a.head_width)),
        width(static_cast<int>(a.head_width)) {}

  __device__ TileRows<T> queries(int first, int count) const {
    return {qkv + first * stride, stride, count, width};
  }
  __device__ TileRows<T> keys(int first, int count) const {
    return {qkv + first * stride + thirds, stride, count, width};
  }
  __device__ TileRows<T> values(int first, int count) const {
    return {qkv + first * stride + 2 * thirds, stride, count, width};
  }
};

/// The keys first … last of a tile of keys that queries g and g + 8 of this lane may see.
struct Visible {
  int first[2], last[2];

  __device__ bool has(int half, int key) const { return first[half] <= key && key <= last[half]; }
};

inline __device__ Visible visible_keys(int count) { return {{0, 0}, {count - 1, count - 1}}; }

/// Within a tile: from the start of the query's sequence to the query itself. Rows past the tile's end see
/// something too, so that no sum is empty.
inline __device__ Visible visible_in_own_tile(const Tile& tile) {
  const int row = lane_row();
  return {{tile.start_of(row), tile.start_of(row + 8)}, {row, row + 8}};
}

inline __device__ int key_of(int half, int element) { return 8 * half + 2 * lane_column() + (element & 1); }

/// The i-th of a tile's tiles of keys: the prefix, then earlier rows of its sequence, then itself.
struct KeyTiles {
  Tile tile;
  int prefix, prefix_tiles, total;

  __device__ KeyTiles(const Tile& of, int prefix_rows)
      : tile(of),
        prefix(of.first < prefix_rows ? 0 : prefix_rows),
        prefix_tiles((prefix + kTileRows - 1) / kTileRows) {
    total = prefix_tiles + (tile.first - tile.from) / kTileRows + 1;
  }
  __device__ int first(int i) const {
    return i < prefix_tiles ? kTileRows * i : tile.from + kTileRows * (i - prefix_tiles);
  }
  __device__ int count(int i) const {
    if (i < prefix_tiles) return min(kTileRows, prefix - kTileRows * i);
    return i + 1 < total ? kTileRows : tile.count;
  }
};

inline int divide_up(std::int64_t value, std::int64_t by) { return static_cast<int>((value + by - 1) / by); }

/// Calls run(T{}, chunks) with the C++ type and the number of chunks as a constant.
template <typename Run>
void with_tiles(const PackedAttention& a, const Run& run) {
  const auto with_chunks = [&](auto type) {
    if (a.head_width <= kChunk) return run(type, std::integral_constant<int, 1>{});
    return run(type, std::integral_constant<int, 2>{});
  };
  if (a.element == Element::kFloat16) return with_chunks(__half{});
  return with_chunks(__nv_bfloat16{});
}

inline float score_scale(const PackedAttention& a) {
  return 1.0f / std::sqrt(static_cast<float>(a.head_width));
}

}  // namespace clip_lora::ops
