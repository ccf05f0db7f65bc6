#pragma once

#include <cuda_pipeline.h>

#include <algorithm>

#include "layer_norm_kernels.hpp"
#include "row_vectors.cuh"

// How the backward of rows with columns is divided among threads, and how rows reach them.
namespace clip_lora::ops {

/// A team of threads works on a group of kRows rows at a time, each thread on kColumns neighbouring columns
/// of which it keeps the sums for dA in registers. A block is several teams; its sums become one part of d_a.
template <int kRank>
struct Team {
  static constexpr int kRows = kRank <= 2 ? 2 : 4;
  static constexpr int kColumns = kRank <= 2 ? 8 : kRank == 4 ? 4 : 2;
  static constexpr int kMostThreads = kRank <= 4 ? 384 : 512;
};

/// Groups of rows in shared memory at most: the one that is worked on, and the next on its way.
constexpr int kMostStages = 2;

struct Teams {
  int threads = 0;  ///< of a team, whole warps, at least as many as a group of rows has numbers
  int count = 0;    ///< in a block; 0: the row is too wide
  int stages = 0;   ///< groups of rows in shared memory
};

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

/// What a team's threads tell each other about a group of rows. There are two, for every other group.
struct TeamMemory {
  uint4* words;    ///< [kRows][words of a row]; x, y, z are masks 0, 1, 2
  float* numbers;  ///< [kRows][kNumbers]
  float* sums;     ///< [warps][kSums]: Σ dy w and Σ dy w x̂ of each row
};

/// Shared memory of a block: what all teams share (A of kMasks · kRank rows, weight, bias), then what each
/// team's threads share, then their copies of rows. In the end all of it takes the teams' sums of one mask.
template <typename T, int kRank, int kMasks>
struct SharedLayout {
  static constexpr int kRows = Team<kRank>::kRows;
  static constexpr int kColumns = Team<kRank>::kColumns;
  /// Of each row: d(A dropout(y)), mask by mask kRank each, then its mean and 1 / deviation.
  static constexpr int kNumbers = kMasks * kRank + 2;
  static constexpr int kPaddedNumbers = (kNumbers + 3) / 4 * 4;
  static constexpr int kSums = next_power_of_two(2 * kRows);  ///< per warp, padded
  static_assert(kSums % 4 == 0, "each team's memory is a multiple of 16 bytes");
  int row_floats, words, team_bytes, stage_bytes, bytes;

  CLIP_LORA_HOST_DEVICE SharedLayout(int width, const Teams& teams)
      : row_floats(kColumns * teams.threads),
        words(kRank > 0 ? words_of_width(width) : 0),
        team_bytes(2 * (kRows * (16 * words + 4 * kPaddedNumbers) + teams.threads / 32 * 4 * kSums)),
        stage_bytes(3 * kRows * row_floats * static_cast<int>(sizeof(T))),
        bytes((kMasks * kRank + 2) * row_floats * 4 +
              teams.count * (team_bytes + teams.stages * stage_bytes)) {
    const int bytes_of_sums = teams.count * kRank * row_floats * 4;
    bytes = bytes > bytes_of_sums ? bytes : bytes_of_sums;
  }

  /// What `team` keeps for every other group of rows: turn 0 or 1.
  __device__ __forceinline__ TeamMemory team_memory(float* shared, int team, int turn) const {
    char* begin = reinterpret_cast<char*>(shared + (kMasks * kRank + 2) * row_floats) + team * team_bytes +
                  turn * (team_bytes / 2);
    auto* numbers = reinterpret_cast<float*>(begin + kRows * 16 * words);
    return {reinterpret_cast<uint4*>(begin), numbers, numbers + kRows * kPaddedNumbers};
  }
  __device__ __forceinline__ char* stages(float* shared, const Teams& teams, int team) const {
    return reinterpret_cast<char*>(shared + (kMasks * kRank + 2) * row_floats) + teams.count * team_bytes +
           team * teams.stages * stage_bytes;
  }
};

/// As many teams as a block may have, or as fit `shared_memory`, and as many stages as fit then.
template <typename T, int kRank, int kMasks>
Teams teams_of(int width, int shared_memory) {
  using Layout = SharedLayout<T, kRank, kMasks>;
  Teams teams;
  const int threads = std::max(width / Team<kRank>::kColumns, Layout::kRows * Layout::kNumbers);
  teams.threads = (threads + 31) / 32 * 32;
  for (teams.count = Team<kRank>::kMostThreads / teams.threads; teams.count > 0; --teams.count) {
    for (teams.stages = kMostStages; teams.stages > 0; --teams.stages) {
      if (Layout(width, teams).bytes <= shared_memory) return teams;
    }
  }
  return teams;
}

/// The number of a group of rows that a thread fetches for its team, if there is one for it.
template <typename T, int kRank, int kMasks>
class TeamNumber {
 public:
  __device__ __forceinline__ TeamNumber(const AppendBackward& p, int thread)
      : row_(thread / kNumbers), index_(thread % kNumbers) {
    if (row_ >= Team<kRank>::kRows) return;
    if (index_ >= kMasks * kRank) {
      statistic_ = index_ == kMasks * kRank ? p.mean : p.inverse_deviation;
      return;
    }
    if constexpr (kRank > 0) {
      const int mask = index_ / kRank, rank = index_ % kRank;
      if (rank >= p.down.ranks[mask]) return;
      d_columns_ = static_cast<const T*>(p.d_rows) + p.width + first_row(p.down.ranks, mask) + rank;
    }
  }

  __device__ __forceinline__ float fetch(const AppendBackward& p, int group) const {
    const int row = group + row_;
    if (row >= p.row_count) return 0;
    if (statistic_ != nullptr) return statistic_[row];
    return d_columns_ != nullptr ? to_float(d_columns_[std::int64_t{row} * (p.width + p.down.columns)]) : 0;
  }
  __device__ __forceinline__ void put(const TeamMemory& memory, float number) const {
    if (row_ < Team<kRank>::kRows) memory.numbers[row_ * Layout::kPaddedNumbers + index_] = number;
  }

 private:
  using Layout = SharedLayout<T, kRank, kMasks>;
  static constexpr int kNumbers = Layout::kNumbers;
  int row_, index_;
  const float* statistic_ = nullptr;
  const T* d_columns_ = nullptr;
};

/// A thread's columns of the rows of x, d_rows and the residual on their way through shared memory, where
/// only the thread itself reads them. Pieces of up to 16 bytes lie beside those of the warp's other lanes.
template <typename T, int kRank>
struct Copies {
  static constexpr int kRows = Team<kRank>::kRows;
  static constexpr int kColumns = Team<kRank>::kColumns;
  static constexpr int kBytes = kColumns * static_cast<int>(sizeof(T));
  static constexpr int kPieceBytes = kBytes < 16 ? kBytes : 16;
  static constexpr int kPieces = kBytes / kPieceBytes;
  enum Matrix { kX, kDRows, kResidual };
  char* memory;  // the team's stages, from this thread's first piece on
  int stage_bytes;
  const T *x, *d_rows, *residual;  // from this thread's first column on; null: not read
  int width, d_stride, last_row;

  /// `stages`: the team's. What lies beyond the last column comes to nothing, so the last columns serve.
  __device__ __forceinline__ Copies(char* stages, int stage_bytes, const AppendBackward& p, int thread)
      : memory(stages + (thread / 32 * (3 * kRows * kPieces) * 32 + thread % 32) * kPieceBytes),
        stage_bytes(stage_bytes),
        width(p.width),
        d_stride(p.width + p.down.columns),
        last_row(static_cast<int>(p.row_count) - 1) {
    const int column = min(thread * kColumns, p.width - kColumns);
    const auto from = [&](const void* matrix) {
      return matrix != nullptr ? static_cast<const T*>(matrix) + column : nullptr;
    };
    x = from(p.x);
    d_rows = p.dx != nullptr ? from(p.d_rows) : nullptr;
    residual = p.dx != nullptr ? from(p.residual) : nullptr;
  }

  __device__ __forceinline__ char* piece(int stage, Matrix matrix, int q, int index) const {
    return memory + stage * stage_bytes + ((matrix * kRows + q) * kPieces + index) * 32 * kPieceBytes;
  }

  __device__ __forceinline__ void start(int stage, Matrix matrix, const T* data, int stride, int row) const {
    if (data == nullptr) return;
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
      const T* from = data + std::int64_t{min(row + q, last_row)} * stride;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        __pipeline_memcpy_async(piece(stage, matrix, q, i), from + i * (kPieceBytes / sizeof(T)),
                                kPieceBytes);
      }
    }
  }

  /// Starts the copies of a group of rows. Beyond the last, the last one serves: its sums come to nothing,
  /// while memory that was never written might hold a NaN.
  __device__ __forceinline__ void start(int stage, int row) const {
    start(stage, kX, x, width, row);
    start(stage, kDRows, d_rows, d_stride, row);
    start(stage, kResidual, residual, width, row);
    __pipeline_commit();
  }

  /// Waits until no more than `groups` of copies, the latest, are under way.
  static __device__ __forceinline__ void await(int groups) {
    if (groups == 1) return __pipeline_wait_prior(1);
    __pipeline_wait_prior(0);
  }

  __device__ __forceinline__ void read(int stage, Matrix matrix, float (&values)[kRows][kColumns]) const {
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        constexpr int kCount = kColumns / kPieces;
        unpack(*reinterpret_cast<const Packed<T, kCount>*>(piece(stage, matrix, q, i)),
               reinterpret_cast<float(&)[kCount]>(values[q][i * kCount]));
      }
    }
  }
};

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

}  // namespace clip_lora::ops
