#include "layer_norm_kernels.hpp"
#include "row_vectors.cuh"

namespace clip_lora::ops {
namespace {

/// A team of threads works on a group of kRows rows at a time, each thread on kColumns neighbouring columns
/// of which it keeps the sums for dA in registers. A block is several teams; its sums become one part of d_a.
template <int kRank>
struct Team {
  static constexpr int kColumns = kRank <= 2 ? 8 : kRank == 4 ? 4 : 2;
  static constexpr int kMostThreads = kRank <= 4 ? 384 : 512;
};

struct Teams {
  int threads = 0;  ///< of a team, whole warps
  int count = 0;    ///< in a block; 0: the row is too wide
};

template <int kRank>
Teams teams_of(int width) {
  const int threads = (width / Team<kRank>::kColumns + 31) / 32 * 32;
  return {threads, Team<kRank>::kMostThreads / threads};
}

/// Where a column of a row lies in shared memory: a thread's columns in pieces of up to four, each beside the
/// neighbouring threads' pieces.
template <int kColumns>
struct TeamPlace {
  static constexpr int kPiece = kColumns < 4 ? kColumns : 4;
  using Piece = Packed<float, kPiece>;
  int team_threads;

  __device__ __forceinline__ int operator()(int column) const {
    return (column % kColumns / kPiece * team_threads + column / kColumns) * kPiece + column % kPiece;
  }
  __device__ __forceinline__ void read(const float* row, int thread, float (&values)[kColumns]) const {
#pragma unroll
    for (int piece = 0; piece < kColumns / kPiece; ++piece) {
      const Piece loaded = reinterpret_cast<const Piece*>(row)[piece * team_threads + thread];
#pragma unroll
      for (int k = 0; k < kPiece; ++k) values[piece * kPiece + k] = __uint_as_float(loaded.words[k]);
    }
  }
  __device__ __forceinline__ void write(float* row, int thread, const float (&values)[kColumns]) const {
#pragma unroll
    for (int piece = 0; piece < kColumns / kPiece; ++piece) {
      Piece stored;
#pragma unroll
      for (int k = 0; k < kPiece; ++k) stored.words[k] = __float_as_uint(values[piece * kPiece + k]);
      reinterpret_cast<Piece*>(row)[piece * team_threads + thread] = stored;
    }
  }
};

/// Of each, there are two, for every other group of rows.
struct TeamMemory {
  uint4* words;      ///< [kRows][words of a row]; x, y, z are masks 0, 1, 2
  float* gradients;  ///< [kRows][kGradients]: of A dropout(y); mask by mask, kRank each
  float* sums;       ///< [warps][kSums]: Σ dy w and Σ dy w x̂ of each row
};

/// Shared memory of a block: what all teams share (A of kMasks · kRank rows, weight, bias), then each team's
/// own. In the end all of it takes the teams' sums of one mask.
template <int kRank, int kMasks, int kRows>
struct SharedLayout {
  static constexpr int kGradients = (kMasks * kRank + 3) / 4 * 4;  ///< per row, padded
  static constexpr int kSums = next_power_of_two(2 * kRows);       ///< per warp, padded
  static_assert(kSums % 4 == 0, "each team's memory is a multiple of 16 bytes");
  int row_floats, words, sum_floats, team_bytes, bytes;

  CLIP_LORA_HOST_DEVICE SharedLayout(int width, Teams teams)
      : row_floats(Team<kRank>::kColumns * teams.threads),
        words(kRank > 0 ? words_of_width(width) : 0),
        sum_floats(teams.threads / 32 * kSums),
        team_bytes(2 * (kRows * (16 * words + 4 * kGradients) + 4 * sum_floats)),
        bytes((kMasks * kRank + 2) * row_floats * 4 + teams.count * team_bytes) {
    const int bytes_of_sums = teams.count * kRank * row_floats * 4;
    bytes = bytes > bytes_of_sums ? bytes : bytes_of_sums;
  }

  /// What `team` keeps for every other group of rows: turn 0 or 1.
  __device__ __forceinline__ TeamMemory team_memory(float* shared, int team, int turn) const {
    char* begin = reinterpret_cast<char*>(shared + (kMasks * kRank + 2) * row_floats) + team * team_bytes +
                  turn * (team_bytes / 2);
    auto* gradients = reinterpret_cast<float*>(begin + kRows * 16 * words);
    return {reinterpret_cast<uint4*>(begin), gradients, gradients + kRows * kGradients};
  }
};

/// The team's mask words and gradients of the updates' columns for its kRows rows from `row` on.
template <typename T, int kRank, int kMasks, int kRows>
__device__ __forceinline__ void prepare_rows(const TeamMemory& memory, int words, const AppendBackward& p,
                                             const DropoutKey& key, std::int64_t row, int thread,
                                             int team_threads) {
  constexpr int kRanks = kMasks * kRank;
  for (int item = thread; item < kRows * kRanks; item += team_threads) {
    const int q = item / kRanks, mask = item % kRanks / kRank, rank = item % kRank;
    float gradient = 0;
    if (row + q < p.row_count && rank < p.down.ranks[mask]) {
      const T* d_columns = row_of<T>(p.d_rows, row + q, p.width + p.down.columns) + p.width;
      gradient = to_float(d_columns[first_row(p.down.ranks, mask) + rank]);
    }
    memory.gradients[q * SharedLayout<kRank, kMasks, kRows>::kGradients + item % kRanks] = gradient;
  }
  for (int item = thread; item < kRows * words; item += team_threads) {
    std::uint32_t bits[3] = {};
    draw_words(p.down.draw, key, row_number(p.down.draw, row + item / words), item % words, kMasks, bits);
    memory.words[item] = {bits[0], bits[1], bits[2], 0};
  }
}

/// Adds, for each update, mask · Aᵀ d(A dropout(y)) / keep to dy and mask · d(A dropout(y)) y to d_a.
template <int kRank, int kMasks, int kRows, int kColumns>
__device__ __forceinline__ void down_backward(const TeamMemory& memory, int words, const float* a_rows,
                                              int row_floats, int thread, const TeamPlace<kColumns>& place,
                                              const float (&y)[kRows][kColumns], float (&dy)[kRows][kColumns],
                                              float (&d_a)[kMasks * kRank][kColumns]) {
  const int vector = thread * kColumns / 8;
  const int shift = shift_of_vector(vector) + thread * kColumns % 8;
  std::uint32_t bits[kRows][3];
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    const uint4 word = memory.words[q * words + word_of_vector(vector)];
    bits[q][0] = word.x >> shift, bits[q][1] = word.y >> shift, bits[q][2] = word.z >> shift;
  }
#pragma unroll
  for (int mask = 0; mask < kMasks; ++mask) {
    float a[kRank][kColumns];
#pragma unroll
    for (int r = 0; r < kRank; ++r) place.read(a_rows + (mask * kRank + r) * row_floats, thread, a[r]);
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
      const float* gradients =
          memory.gradients + q * SharedLayout<kRank, kMasks, kRows>::kGradients + mask * kRank;
#pragma unroll
      for (int r = 0; r < kRank; ++r) {
        const float gradient = gradients[r];
#pragma unroll
        for (int k = 0; k < kColumns; ++k) {
          add_where(bits[q][mask], 1u << k, gradient, a[r][k], dy[q][k]);
          add_where(bits[q][mask], 1u << k, gradient, y[q][k], d_a[mask * kRank + r][k]);
        }
      }
    }
  }
}

/// Adds up the teams' sums, which takes all of the block's shared memory, and writes the block's part.
template <int kRank, int kMasks, int kColumns>
__device__ __forceinline__ void write_part(float* shared, int row_floats, const AppendBackward& p, int thread,
                                           int team, int teams, const TeamPlace<kColumns>& place,
                                           const float (&d_a)[kMasks * kRank][kColumns]) {
  const float scale = inverse_keep(p.down.draw);
#pragma unroll
  for (int mask = 0; mask < kMasks; ++mask) {
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kRank; ++r) {
      place.write(shared + (team * kRank + r) * row_floats, thread, d_a[mask * kRank + r]);
    }
    __syncthreads();
    for (int r = 0; r < p.down.ranks[mask]; ++r) {
      float* target =
          p.d_a + blockIdx.x * p.part_stride + std::int64_t{first_row(p.down.ranks, mask) + r} * p.width;
      for (int c = 4 * static_cast<int>(threadIdx.x); c < p.width; c += 4 * static_cast<int>(blockDim.x)) {
        float4 sum = {};
#pragma unroll 1
        for (int t = 0; t < teams; ++t) {
          const auto* added = shared + (t * kRank + r) * row_floats + place(c);
          const float4 own = *reinterpret_cast<const float4*>(added);
          sum.x += own.x, sum.y += own.y, sum.z += own.z, sum.w += own.w;
        }
        *reinterpret_cast<float4*>(target + c) = {scale * sum.x, scale * sum.y, scale * sum.z, scale * sum.w};
      }
    }
  }
}

/// How many rows there are from `row` on, at most all of a team's.
__device__ __forceinline__ int rows_left(const AppendBackward& p, std::int64_t row) {
  return static_cast<int>(min(max(p.row_count - row, std::int64_t{0}), std::int64_t{32}));
}

/// What a team reads of its kRows rows; zeros beyond the last row and column.
template <typename T, int kRows, int kColumns, bool kNormalise>
struct LoadedRows {
  Packed<T, kColumns> x[kRows], d_rows[kRows];
  float mean[kRows], inverse_deviation[kRows];

  __device__ __forceinline__ void load(const AppendBackward& p, std::int64_t row, int column) {
    const int rows = column < p.width ? rows_left(p, row) : 0, d_stride = p.width + p.down.columns;
    const T* x_rows = row_of<T>(p.x, row, p.width) + column;
    const T* gradients = row_of<T>(p.d_rows, row, d_stride) + column;
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
      x[q] = d_rows[q] = {};
      mean[q] = inverse_deviation[q] = 0;
      if (q < rows) {
        x[q] = load_packed<T, kColumns>(x_rows, q * p.width);
        if (kNormalise) mean[q] = p.mean[row + q], inverse_deviation[q] = p.inverse_deviation[row + q];
      }
      if (q < rows && p.dx != nullptr) d_rows[q] = load_packed<T, kColumns>(gradients, q * d_stride);
    }
  }
};

template <typename T, int kRows, int kColumns>
__device__ __forceinline__ void load_residual(const AppendBackward& p, std::int64_t row, int column,
                                              Packed<T, kColumns> (&residual)[kRows]) {
  const int rows = column < p.width ? rows_left(p, row) : 0;
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    residual[q] = {};
    if (q < rows && p.residual != nullptr) {
      residual[q] = load_packed<T, kColumns>(row_of<T>(p.residual, row, p.width) + column, q * p.width);
    }
  }
}

__device__ __forceinline__ void team_barrier(int team, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(threads) : "memory");
}

/// Sums of `values` over the team, which go through `sums` [warps][kSums] of shared memory.
template <int kSums>
__device__ __forceinline__ void team_sums(float (&values)[kSums], float* sums, int team, int thread,
                                          int threads) {
  using Sums = Packed<float, kSums>;
  const float held = scattered_warp_sums(values);
  constexpr int kLanes = 32 / kSums;  // that hold the same value
  if (thread % kLanes == 0) sums[thread / kLanes] = held;
  team_barrier(team, threads);
#pragma unroll
  for (int i = 0; i < kSums; ++i) values[i] = 0;
#pragma unroll 1
  for (int warp = 0; warp < threads / 32; ++warp) {
    float added[kSums];
    unpack(*reinterpret_cast<const Sums*>(sums + warp * kSums), added);
#pragma unroll
    for (int i = 0; i < kSums; ++i) values[i] += added[i];
  }
}

/// Gradient of the rows themselves, and x̂; x where rows are not normalised.
template <typename T, int kRows, int kColumns, bool kNormalise>
__device__ __forceinline__ void unpack_rows(const LoadedRows<T, kRows, kColumns, kNormalise>& loaded,
                                            float (&dy)[kRows][kColumns],
                                            float (&normalised)[kRows][kColumns]) {
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    unpack(loaded.d_rows[q], dy[q]);
    unpack(loaded.x[q], normalised[q]);
    if (kNormalise) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
        normalised[q][k] = (normalised[q][k] - loaded.mean[q]) * loaded.inverse_deviation[q];
      }
    }
  }
}

/// What forward's columns were computed from: the rows, rounded to their type.
template <typename T, bool kNormalise, int kRows, int kColumns>
__device__ __forceinline__ void recompute_rows(const float (&normalised)[kRows][kColumns],
                                               const float (&weight)[kColumns], const float (&bias)[kColumns],
                                               float (&y)[kRows][kColumns]) {
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      y[q][k] = kNormalise ? fmaf(normalised[q][k], weight[k], bias[k]) : normalised[q][k];
    }
    unpack(pack<T>(y[q]), y[q]);
  }
}

/// dy · weight in place of dy, and for each row q its sum (2 q) and that of its product with x̂ (2 q + 1).
template <int kSums, int kRows, int kColumns>
__device__ __forceinline__ void weigh(float (&dy)[kRows][kColumns],
                                      const float (&normalised)[kRows][kColumns],
                                      const float (&weight)[kColumns], float (&sums)[kSums]) {
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      dy[q][k] *= weight[k];  // 0 beyond the width
      sums[2 * q] += dy[q][k];
      sums[2 * q + 1] = fmaf(dy[q][k], normalised[q][k], sums[2 * q + 1]);
    }
  }
}

/// dx of the team's rows: (dy − mean(dy) − x̂ mean(dy x̂)) / deviation + residual, dy itself where not
/// normalised.
template <typename T, bool kNormalise, int kSums, int kRows, int kColumns>
__device__ __forceinline__ void write_dx(const AppendBackward& p, std::int64_t row, int column,
                                         const float (&dy)[kRows][kColumns],
                                         const float (&normalised)[kRows][kColumns],
                                         const float (&sums)[kSums], const float (&inverse_deviation)[kRows],
                                         const Packed<T, kColumns> (&residual)[kRows]) {
  const int rows = column < p.width ? rows_left(p, row) : 0;
  const float inverse_width = 1.0f / static_cast<float>(p.width);
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    float dx[kColumns];
    unpack(residual[q], dx);
    const float factor = kNormalise ? inverse_deviation[q] : 1.0f;
    const float mean_dy = -factor * inverse_width * sums[2 * q];
    const float mean_product = -factor * inverse_width * sums[2 * q + 1];
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      if (kNormalise) dx[k] += fmaf(normalised[q][k], mean_product, mean_dy);
      dx[k] = fmaf(dy[q][k], factor, dx[k]);
    }
    if (q < rows) store_packed(row_of<T>(p.dx, row, p.width) + column, q * p.width, pack<T>(dx));
  }
}

template <typename T, int kRank, int kMasks, int kRows, bool kPrefetch, bool kNormalise>
__global__ void __launch_bounds__(Team<kRank>::kMostThreads, 1)
    append_backward_kernel(const AppendBackward p, const Teams teams) {
  constexpr int kColumns = Team<kRank>::kColumns;
  using Layout = SharedLayout<kRank, kMasks, kRows>;
  extern __shared__ float4 shared_memory[];
  const Layout layout(p.width, teams);
  const TeamPlace<kColumns> place = {teams.threads};
  const int team = warp_index() / (teams.threads / 32);
  const int thread = static_cast<int>(threadIdx.x) - team * teams.threads;
  const int column = thread * kColumns;
  auto* a_rows = reinterpret_cast<float*>(shared_memory);
  const float* weights = a_rows + kMasks * kRank * layout.row_floats;
  const auto memory_of = [&](int turn) { return layout.team_memory(a_rows, team, turn); };

  // All teams of a block go through equally many groups of rows, the last of which may be empty.
  const std::int64_t step = std::int64_t{gridDim.x} * teams.count * kRows;
  std::int64_t block_row = std::int64_t{blockIdx.x} * teams.count * kRows;
  std::int64_t row = block_row + team * kRows;
  LoadedRows<T, kRows, kColumns, kNormalise> next;
  next.load(p, row, column);
  const DropoutKey key = kRank > 0 ? read_key(p.down.draw) : DropoutKey{};
  fill_shared_rows<T, kRank, kMasks>(a_rows, layout.row_floats, p.down, p.weight, p.bias, p.width, place);
  if constexpr (kRank > 0) {
    prepare_rows<T, kRank, kMasks, kRows>(memory_of(0), layout.words, p, key, row, thread, teams.threads);
  }
  __syncthreads();

  float d_a[kRank > 0 ? kMasks * kRank : 1][kColumns] = {};
  for (int turn = 0; block_row < p.row_count; block_row += step, row += step, turn ^= 1) {
    const TeamMemory memory = memory_of(turn);
    const LoadedRows<T, kRows, kColumns, kNormalise> loaded = next;
    if (kPrefetch) next.load(p, row + step, column);
    if constexpr (kRank > 0) {  // for the next group, so that one barrier serves both this and the sums
      if (block_row + step < p.row_count) {
        prepare_rows<T, kRank, kMasks, kRows>(memory_of(turn ^ 1), layout.words, p, key, row + step, thread,
                                              teams.threads);
      }
    }

    float dy[kRows][kColumns], normalised[kRows][kColumns], weight[kColumns];
    if (kNormalise) place.read(weights, thread, weight);
    unpack_rows(loaded, dy, normalised);
    if constexpr (kRank > 0) {
      float y[kRows][kColumns], bias[kColumns];
      if (kNormalise) place.read(weights + layout.row_floats, thread, bias);
      recompute_rows<T, kNormalise>(normalised, weight, bias, y);
      down_backward<kRank, kMasks>(memory, layout.words, a_rows, layout.row_floats, thread, place, y, dy,
                                   d_a);
    }
    if (p.dx == nullptr) {
      if (!kPrefetch) next.load(p, row + step, column);
      team_barrier(team, teams.threads);
      continue;
    }

    Packed<T, kColumns> residual[kRows];
    load_residual(p, row, column, residual);
    float sums[Layout::kSums] = {};
    if (kNormalise) {
      weigh(dy, normalised, weight, sums);
      team_sums(sums, memory.sums, team, thread, teams.threads);
    } else {
      team_barrier(team, teams.threads);
    }
    if (!kPrefetch) next.load(p, row + step, column);
    write_dx<T, kNormalise>(p, row, column, dy, normalised, sums, loaded.inverse_deviation, residual);
  }
  if constexpr (kRank > 0) {
    write_part<kRank, kMasks>(a_rows, layout.row_floats, p, thread, team, teams.count, place, d_a);
  }
}

template <typename T, int kRank, int kMasks, int kRows, bool kPrefetch, bool kNormalise>
void launch(const AppendBackward& p, int multiprocessors, cudaStream_t stream) {
  const Teams teams = teams_of<kRank>(p.width);
  const int shared_bytes = SharedLayout<kRank, kMasks, kRows>(p.width, teams).bytes;
  auto* kernel = append_backward_kernel<T, kRank, kMasks, kRows, kPrefetch, kNormalise>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  const int blocks = kRank > 0 ? p.parts : multiprocessors;
  kernel<<<blocks, teams.count * teams.threads, shared_bytes, stream>>>(p, teams);
}

template <int kRank, int kMasks, int kRows>
int shared_bytes(int width) {
  const Teams teams = teams_of<kRank>(width);
  return teams.count > 0 ? SharedLayout<kRank, kMasks, kRows>(width, teams).bytes : -1;
}

/// Rows that a team works on at a time.
template <int kRank>
constexpr int kRowsAtATime = kRank <= 2 ? 2 : 4;

/// Normalised rows may have three masks, others have one.
template <typename T, int kRank>
void launch_with_rank(const AppendBackward& p, int multiprocessors, cudaStream_t stream) {
  if (p.weight != nullptr)
    return launch<T, kRank, 3, kRowsAtATime<kRank>, false, true>(p, multiprocessors, stream);
  launch<T, kRank, 1, kRowsAtATime<kRank>, false, false>(p, multiprocessors, stream);
}

}  // namespace

int append_backward_shared_bytes(int width, bool normalise, const DownUpdates& down) {
  const bool masks_fit = normalise || (down.ranks[1] == 0 && down.ranks[2] == 0);
  if (width % 8 != 0 || width > kWidestRow || !masks_fit) return -1;
  switch (padded_rank(down.ranks)) {  // of three masks, an upper bound for one
    case 0:
      return shared_bytes<0, 1, kRowsAtATime<0>>(width);
    case 2:
      return shared_bytes<2, 3, kRowsAtATime<2>>(width);
    case 4:
      return shared_bytes<4, 3, kRowsAtATime<4>>(width);
    default:
      return shared_bytes<8, 3, kRowsAtATime<8>>(width);
  }
}

void launch_append_backward(const AppendBackward& arguments, Element element, int multiprocessors,
                            cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    switch (padded_rank(arguments.down.ranks)) {
      case 0:
        return launch<T, 0, 1, kRowsAtATime<0>, true, true>(arguments, multiprocessors, stream);
      case 2:
        return launch_with_rank<T, 2>(arguments, multiprocessors, stream);
      case 4:
        return launch_with_rank<T, 4>(arguments, multiprocessors, stream);
      default:
        return launch_with_rank<T, 8>(arguments, multiprocessors, stream);
    }
  });
}

}  // namespace clip_lora::ops
