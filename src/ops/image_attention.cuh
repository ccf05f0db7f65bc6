#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "device_limits.hpp"
#include "element.cuh"
#include "image_attention_kernels.hpp"
#include "tensor_core.cuh"

// What the forward and the backward of image attention share: a warp owns tiles of 16 rows of a head and
// keeps their operands and sums in registers; the rows of the other side pass through shared memory in
// blocks.
namespace clip_lora::ops {

/// How the work of a head is divided.
struct AttentionTiling {
  int warps;  ///< of a thread block, each with its own rows of the head
  int block;  ///< rows of the other side in shared memory at a time, twice: a multiple of 16
  int parts;  ///< of a head, each a thread block's work
};

constexpr int kTileRows = 16;

/// Elements from a row to the next in shared memory. A row is an odd number of 16-byte units, so that the
/// eight rows of a matrix lie in different banks.
template <int kWidth>
constexpr int kPitch = kWidth + 8;

/// A head's third of qkv or its part of rows: `length` rows of `width` elements, zeros beyond.
template <typename T>
struct HeadMatrix {
  T* data;
  int stride;
  int length;
  int width;

  __device__ T* at(int row, int column) const {
    return data + static_cast<std::int64_t>(row) * stride + column;
  }
  __device__ bool has(int row, int column) const { return row < length && column < width; }
};

template <typename T>
struct Head {
  HeadMatrix<const T> q, k, v;
  HeadMatrix<T> rows;     // as the forward writes it
  HeadMatrix<const T> o;  // and as the backward reads it
  HeadMatrix<const T> d_rows;
  HeadMatrix<T> d_q, d_k, d_v;
  float* log_sum_exp;  // [L]
};

/// Head `index` of all images' heads, image by image. Only 64 columns are known to be a head's width when
/// compiled, which saves comparing columns with it.
template <typename T, int kWidth>
__device__ __forceinline__ Head<T> head_of(const ImageAttention& attention, int index) {
  const auto heads = static_cast<int>(attention.heads);
  const auto length = static_cast<int>(attention.length);
  const int width = kWidth == 64 ? kWidth : static_cast<int>(attention.head_width);
  int model_width = heads * width;  // D
  // Computed ahead and kept, the addresses of all matrices would take the registers that products need.
  asm volatile("" : "+r"(model_width));
  const std::int64_t first_row = static_cast<std::int64_t>(index / heads) * length;
  const int column = index % heads * width;
  const std::int64_t in_thirds = first_row * 3 * model_width + column;
  const std::int64_t in_rows = first_row * model_width + column;
  const auto third = [&](auto* data, int which) {
    using U = std::remove_pointer_t<decltype(data)>;
    return HeadMatrix<U>{data + in_thirds + which * model_width, 3 * model_width, length, width};
  };
  const auto* qkv = static_cast<const T*>(attention.qkv);
  auto* d_qkv = static_cast<T*>(attention.d_qkv);
  return {third(qkv, 0),
          third(qkv, 1),
          third(qkv, 2),
          {static_cast<T*>(attention.rows) + in_rows, model_width, length, width},
          {static_cast<const T*>(attention.rows) + in_rows, model_width, length, width},
          {static_cast<const T*>(attention.d_rows) + in_rows, model_width, length, width},
          third(d_qkv, 0),
          third(d_qkv, 1),
          third(d_qkv, 2),
          attention.log_sum_exp + static_cast<std::int64_t>(index) * length};
}

/// 1/√(head width), times log2(e) where scores are exponents of two.
__device__ __forceinline__ float score_scale(const ImageAttention& attention) {
  return rsqrtf(static_cast<float>(attention.head_width));
}

constexpr float kLog2E = 1.44269504088896341F;
constexpr float kLn2 = 0.69314718055994531F;

/// What thread blocks go through: `units` pieces of work, each over all blocks of rows of one side of a head.
struct Progress {
  int unit;
  int first;  // row of the block

  /// To the next block of rows, if need be of this thread block's next unit.
  __device__ void advance(int length, int block) {
    first += block;
    if (first < length) return;
    first = 0;
    unit += static_cast<int>(gridDim.x);
  }
};

/// All threads of a block go through its units. Calls start(unit, first row, stage) for each block of rows,
/// which starts copies of it, and, while the next one's copies are under way, use(unit, first row, stage).
template <typename Start, typename Use>
__device__ __forceinline__ void for_each_block(int units, int length, int block, const Start& start,
                                               const Use& use) {
  Progress now{static_cast<int>(blockIdx.x), 0};
  Progress next = now;
  start(next.unit, next.first, 0);
  close_copies();
  for (int stage = 0; now.unit < units; stage = 1 - stage) {
    next.advance(length, block);
    if (next.unit < units) start(next.unit, next.first, 1 - stage);
    close_copies();
    await_copies<1>();
    __syncthreads();
    use(now.unit, now.first, stage);
    __syncthreads();
    now = next;
  }
}

/// All threads: starts copying rows [first, first + count) to shared memory, kPitch apart. Eight threads
/// share a row.
template <typename T, int kWidth>
__device__ __forceinline__ void start_block(std::uint32_t shared, const HeadMatrix<const T>& matrix,
                                            int first, int count) {
  const int place = static_cast<int>(threadIdx.x) % 8 * 8;
  const int step = static_cast<int>(blockDim.x) / 8;
  int row = static_cast<int>(threadIdx.x) / 8;
  const T* from = matrix.at(first + row, place);
  const std::int64_t stride = static_cast<std::int64_t>(step) * matrix.stride;
  std::uint32_t to = shared + (row * kPitch<kWidth> + place) * 2;
#pragma unroll 1
  for (; row < count; row += step) {
#pragma unroll
    for (int column = 0; column < kWidth; column += 64) {
      if (column + place < kWidth)
        start_copy(to + column * 2, from + column, matrix.has(first + row, column + place));
    }
    from += stride;
    to += step * kPitch<kWidth> * 2;
  }
}

__device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32; }

/// This lane's bytes from the start of a tile in shared memory for load_matrices, whose result is then the
/// right operand of tile rows 0 to 7 (matrices 0, 1) and 8 to 15 (matrices 2, 3) as columns: products with
/// the tile's transpose.
template <int kWidth>
__device__ __forceinline__ std::uint32_t offset_for_transpose() {
  const int row = lane() % 8 + lane() / 16 * 8;
  const int column = lane() / 8 % 2 * 8;
  return (row * kPitch<kWidth> + column) * 2;
}

/// The same for load_matrices_transposed: the right operand is the tile's columns 0 to 7 and 8 to 15.
template <int kWidth>
__device__ __forceinline__ std::uint32_t offset_for_product() {
  const int row = lane() % 16;
  const int column = lane() / 16 * 8;
  return (row * kPitch<kWidth> + column) * 2;
}

template <int kWidth>
constexpr std::uint32_t kTileBytes = kTileRows* kPitch<kWidth> * 2;

/// Eight elements, the row being the last one if beyond it: without a branch, so that several loads overlap.
template <typename T>
__device__ __forceinline__ uint4 load_eight(const HeadMatrix<const T>& matrix, int row, int column) {
  const uint4 eight = __ldg(
      reinterpret_cast<const uint4*>(matrix.at(min(row, matrix.length - 1), min(column, matrix.width - 8))));
  return column < matrix.width ? eight : make_uint4(0, 0, 0, 0);
}

template <typename T>
__device__ __forceinline__ float dot_eight(const uint4& a, const uint4& b) {
  const std::uint32_t left[4] = {a.x, a.y, a.z, a.w};
  const std::uint32_t right[4] = {b.x, b.y, b.z, b.w};
  float sum = 0.0F;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 x = unpack<T>(left[i]);
    const float2 y = unpack<T>(right[i]);
    sum += x.x * y.x + x.y * y.y;
  }
  return sum;
}

/// The sum over eight neighbouring lanes.
__device__ __forceinline__ float sum_of_eight(float value) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2) value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
  return value;
}

/// The warp starts copying 16 rows to shared memory, kPitch apart.
template <typename T, int kWidth>
__device__ __forceinline__ void start_tile(std::uint32_t shared, const HeadMatrix<const T>& matrix,
                                           int first) {
  constexpr int kUnits = kWidth / 8;
#pragma unroll
  for (int i = 0; i < kUnits / 2; ++i) {
    const int row = (lane() + i * 32) / kUnits;
    const int column = (lane() + i * 32) % kUnits * 8;
    start_copy(shared + (row * kPitch<kWidth> + column) * 2, matrix.at(first + row, column),
               matrix.has(first + row, column));
  }
}

/// Loads 16 rows of shared memory as left operands.
template <int kWidth>
__device__ __forceinline__ void load_tile(LeftFragment (&tile)[kWidth / 16], std::uint32_t shared) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    load_matrices(tile[step], shared + offset_for_product<kWidth>() + step * 32);
  }
}

/// Stores a tile of 16 rows, those of this lane multiplied by upper (row g) and lower (row g + 8), by way of
/// kTileBytes of shared memory that only this warp uses, so that each lane writes 16 neighbouring bytes.
template <typename T, int kWidth>
__device__ __forceinline__ void store_tile(unsigned char* shared, const HeadMatrix<T>& matrix, int first,
                                           const Accumulator (&tile)[kWidth / 8], float upper, float lower) {
  auto* pairs = reinterpret_cast<std::uint32_t*>(shared + (lane() / 4 * kPitch<kWidth> + lane() % 4 * 2) * 2);
  __syncwarp();
#pragma unroll
  for (int column = 0; column < kWidth / 8; ++column) {
    pairs[column * 4] = pack<T>(tile[column][0] * upper, tile[column][1] * upper);
    pairs[column * 4 + 4 * kPitch<kWidth>] = pack<T>(tile[column][2] * lower, tile[column][3] * lower);
  }
  __syncwarp();
  constexpr int kUnits = kWidth / 8;
#pragma unroll
  for (int i = 0; i < kUnits / 2; ++i) {
    const int row = (lane() + i * 32) / kUnits;
    const int column = (lane() + i * 32) % kUnits * 8;
    if (!matrix.has(first + row, column)) continue;
    *reinterpret_cast<uint4*>(matrix.at(first + row, column)) =
        *reinterpret_cast<const uint4*>(shared + (row * kPitch<kWidth> + column) * 2);
  }
}

/// The sum, or the maximum, over the four lanes that share a row of accumulators.
__device__ __forceinline__ float sum_of_row(float value) {
  value += __shfl_xor_sync(0xFFFFFFFFU, value, 1);
  return value + __shfl_xor_sync(0xFFFFFFFFU, value, 2);
}

__device__ __forceinline__ float maximum_of_row(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
}

/// Accumulators of 16 × 16 scores as the left operand of the next product.
template <typename T>
__device__ __forceinline__ void to_left(LeftFragment& fragment, const Accumulator (&scores)[2]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) fragment[i] = pack<T>(scores[i / 2][i % 2 * 2], scores[i / 2][i % 2 * 2 + 1]);
}

/// Step `step`, of 16 of kWidth dimensions, of scores += left · (16 rows of shared memory)ᵀ; `address` has
/// offset_for_transpose in it. Steps of several products are taken in turn, so that none waits for its own
/// last one.
template <typename T, int kWidth>
__device__ __forceinline__ void add_scores_step(Accumulator (&scores)[2],
                                                const LeftFragment (&left)[kWidth / 16],
                                                std::uint32_t address, int step) {
  std::uint32_t right[4];
  load_matrices(right, address + step * 32);
  multiply_add<T>(scores[0], left[step], right[0], right[1]);
  multiply_add<T>(scores[1], left[step], right[2], right[3]);
}

/// sums += left · (16 rows of shared memory); `address` has offset_for_product in it.
template <typename T, int kWidth>
__device__ __forceinline__ void add_products(Accumulator (&sums)[kWidth / 8], const LeftFragment& left,
                                             std::uint32_t address) {
#pragma unroll
  for (int pair = 0; pair < kWidth / 16; ++pair) {
    std::uint32_t right[4];
    load_matrices_transposed(right, address + pair * 32);
    multiply_add<T>(sums[2 * pair], left, right[0], right[1]);
    multiply_add<T>(sums[2 * pair + 1], left, right[2], right[3]);
  }
}

/// What both need of a problem and its device.
inline bool tensor_core_takes(const ImageAttention& attention) {
  const bool sixteen_bits = attention.element != Element::kFloat32;
  const bool width_fits =
      attention.head_width > 0 && attention.head_width <= 128 && attention.head_width % 8 == 0;
  const bool counts_fit =
      attention.length > 0 && attention.length * attention.heads * attention.head_width < (1 << 28);
  return sixteen_bits && width_fits && counts_fit && device_limits().compute_capability >= 80;
}

inline bool aligned(const void* address) { return reinterpret_cast<std::uintptr_t>(address) % 16 == 0; }

/// Bytes in shared memory of a row of two matrices and `floats` numbers.
template <int kWidth>
__host__ __device__ constexpr int row_bytes(int floats) {
  return 2 * kPitch<kWidth> * 2 + floats * static_cast<int>(sizeof(float));
}

inline int divide_up(std::int64_t a, std::int64_t b) { return static_cast<int>((a + b - 1) / b); }

/// What a kernel keeps in shared memory.
struct SharedUse {
  int bytes;      ///< it may take
  int own_tiles;  ///< of 16 rows for each warp
  int floats;     ///< beside each row of a block's two matrices
  bool resident;  ///< whether it goes through several heads, and copies the next one's rows ahead
};

/// As few idle warps as at most `max_warps` demand, and as few blocks of rows as fit.
template <int kWidth>
AttentionTiling tile_head(const ImageAttention& attention, int max_warps, const SharedUse& use) {
  const int own_bytes = use.own_tiles * static_cast<int>(kTileBytes<kWidth>);
  const int tiles = divide_up(attention.length, kTileRows);
  const int parts = divide_up(tiles, std::min(max_warps, use.bytes / 2 / own_bytes));
  const int warps = divide_up(tiles, parts);
  const int fitting = (use.bytes - warps * own_bytes) / (kTileRows * row_bytes<kWidth>(use.floats));
  if (!use.resident && tiles <= fitting) return {warps, tiles * kTileRows, parts};
  const int blocks = divide_up(tiles, fitting / 2);
  return {warps, divide_up(tiles, blocks) * kTileRows, parts};
}

template <int kWidth>
int shared_bytes(const AttentionTiling& tiling, int stages, const SharedUse& use) {
  return stages * tiling.block * row_bytes<kWidth>(use.floats) +
         tiling.warps * use.own_tiles * static_cast<int>(kTileBytes<kWidth>);
}

/// Lets a kernel use that much shared memory; how many thread blocks run at once, at most `units`, which they
/// share.
template <typename Kernel>
int resident_blocks(const Kernel& kernel, int threads, int shared_bytes, int units) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  int blocks = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, threads, shared_bytes);
  return std::max(1, std::min(units, blocks * device_limits().multiprocessors));
}

/// Calls run(T{}, width) with the C++ type and, as a std::integral_constant, what head widths are padded to.
template <typename Run>
void with_width(const ImageAttention& attention, const Run& run) {
  const auto with_element = [&](auto element) {
    if (attention.head_width == 64) return run(element, std::integral_constant<int, 64>{});
    if (attention.head_width <= 96) return run(element, std::integral_constant<int, 96>{});
    return run(element, std::integral_constant<int, 128>{});
  };
  if (attention.element == Element::kFloat16) return with_element(__half{});
  with_element(__nv_bfloat16{});
}

}  // namespace clip_lora::ops
