#include "device_limits.hpp"
#include "layer_norm_kernels.hpp"
#include "layer_norm_teams.cuh"
#include "row_vectors.cuh"

namespace clip_lora::ops {
namespace {

/// The team's mask words for its kRows rows from `row` on: each warp draws 32 words at a time.
template <int kRows, int kMasks>
__device__ __forceinline__ void draw_masks(const TeamMemory& memory, int words, const AppendBackward& p,
                                           const DropoutKey& key, int row, int thread, int team_threads) {
  for (int item = thread / 32; item < words / 32 * kRows; item += team_threads / 32) {
    const int q = item % kRows, word = item / kRows * 32 + thread % 32;
    std::uint32_t bits[3] = {};
    draw_words(p.down.draw, key, row_number(p.down.draw, row + q), word, kMasks, bits);
    memory.words[q * words + word] = {bits[0], bits[1], bits[2], 0};
  }
}

/// Adds, for each update, mask · Aᵀ d(A dropout(y)) / keep to dy and mask · d(A dropout(y)) y to d_a.
template <int kRank, int kMasks, int kNumbers, int kRows, int kColumns>
__device__ __forceinline__ void down_backward(const TeamMemory& memory, int words, const float* a_rows,
                                              int row_floats, int thread, const TeamPlace<kColumns>& place,
                                              const float (&numbers)[kRows][kNumbers],
                                              const float (&y)[kRows][kColumns], float (&dy)[kRows][kColumns],
                                              float (&d_a)[kMasks * kRank][kColumns]) {
  constexpr int kHalf = kColumns < 4 ? kColumns : 4;  // whose bits become predicates in one instruction
  const int vector = thread * kColumns / 8;
  const int shift = shift_of_vector(vector) + thread * kColumns % 8;
  std::uint32_t bits[kRows][3][kColumns / kHalf];
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    const uint4 word = memory.words[q * words + word_of_vector(vector)];
#pragma unroll
    for (int half = 0; half < kColumns / kHalf; ++half) {
      const int by = shift + half * kHalf;
      bits[q][0][half] = word.x >> by, bits[q][1][half] = word.y >> by, bits[q][2][half] = word.z >> by;
    }
  }
#pragma unroll
  for (int mask = 0; mask < kMasks; ++mask) {
    float a[kRank][kColumns];
#pragma unroll
    for (int r = 0; r < kRank; ++r) place.read(a_rows + (mask * kRank + r) * row_floats, thread, a[r]);
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
#pragma unroll
      for (int k = 0; k < kColumns; ++k) {
#pragma unroll
        for (int r = 0; r < kRank; ++r) {
          const float gradient = numbers[q][mask * kRank + r];
          add_where(bits[q][mask][k / kHalf], 1u << k % kHalf, gradient, a[r][k], dy[q][k]);
          add_where(bits[q][mask][k / kHalf], 1u << k % kHalf, gradient, y[q][k], d_a[mask * kRank + r][k]);
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

/// x̂ in place of x.
template <int kRows, int kColumns>
__device__ __forceinline__ void normalise(float (&x)[kRows][kColumns], const float (&mean)[kRows],
                                          const float (&inverse_deviation)[kRows]) {
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
#pragma unroll
    for (int k = 0; k < kColumns; ++k) x[q][k] = (x[q][k] - mean[q]) * inverse_deviation[q];
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
/// normalised. `dx` holds the residual.
template <typename T, bool kNormalise, int kSums, int kRows, int kColumns>
__device__ __forceinline__ void write_dx(const AppendBackward& p, int row, int column,
                                         const float (&dy)[kRows][kColumns],
                                         const float (&normalised)[kRows][kColumns],
                                         const float (&sums)[kSums], const float (&inverse_deviation)[kRows],
                                         float (&dx)[kRows][kColumns]) {
  const float inverse_width = 1.0f / static_cast<float>(p.width);
#pragma unroll
  for (int q = 0; q < kRows; ++q) {
    const float factor = kNormalise ? inverse_deviation[q] : 1.0f;
    const float mean_dy = -factor * inverse_width * sums[2 * q];
    const float mean_product = -factor * inverse_width * sums[2 * q + 1];
#pragma unroll
    for (int k = 0; k < kColumns; ++k) {
      if (kNormalise) dx[q][k] += fmaf(normalised[q][k], mean_product, mean_dy);
      dx[q][k] = fmaf(dy[q][k], factor, dx[q][k]);
    }
    if (row + q < p.row_count && column < p.width) {
      store_packed(row_of<T>(p.dx, row + q, p.width), column, pack<T>(dx[q]));
    }
  }
}

template <typename T, int kRank, int kMasks, bool kNormalise>
__global__ void __launch_bounds__(Team<kRank>::kMostThreads, 1)
    append_backward_kernel(const AppendBackward p, const Teams teams) {
  constexpr int kRows = Team<kRank>::kRows, kColumns = Team<kRank>::kColumns;
  using Layout = SharedLayout<T, kRank, kMasks>;
  using Rows = Copies<T, kRank>;
  extern __shared__ float4 shared_memory[];
  const Layout layout(p.width, teams);
  const TeamPlace<kColumns> place = {teams.threads};
  const int team = warp_index() / (teams.threads / 32);
  const int thread = static_cast<int>(threadIdx.x) - team * teams.threads;
  const int column = thread * kColumns;
  auto* a_rows = reinterpret_cast<float*>(shared_memory);
  const float* weights = a_rows + kMasks * kRank * layout.row_floats;
  const auto memory_of = [&](int turn) { return layout.team_memory(a_rows, team, turn); };
  const Rows copies(layout.stages(a_rows, teams, team), layout.stage_bytes, p, thread);
  const TeamNumber<T, kRank, kMasks> number(p, thread);

  // All teams of a block go through equally many groups of rows, the last of which may be empty.
  const int step = static_cast<int>(gridDim.x) * teams.count * kRows;
  const int rows = static_cast<int>(p.row_count);
  int block_row = static_cast<int>(blockIdx.x) * teams.count * kRows;
  int row = block_row + team * kRows;
  for (int ahead = 0; ahead + 1 < teams.stages; ++ahead) copies.start(ahead, row + ahead * step);
  const float first_number = number.fetch(p, row);
  float next_number = number.fetch(p, row + step);
  const DropoutKey key = kRank > 0 ? read_key(p.down.draw) : DropoutKey{};
  fill_shared_rows<T, kRank, kMasks>(a_rows, layout.row_floats, p.down, p.weight, p.bias, p.width, place);
  const auto draw = [&](int turn, int first) {
    draw_masks<kRows, kMasks>(memory_of(turn), layout.words, p, key, first, thread, teams.threads);
  };
  if constexpr (kRank > 0) draw(0, row);
  number.put(memory_of(0), first_number);
  __syncthreads();

  float d_a[kRank > 0 ? kMasks * kRank : 1][kColumns] = {};
  for (int turn = 0, stage = 0; block_row < rows; block_row += step, row += step, turn ^= 1) {
    const TeamMemory memory = memory_of(turn);
    copies.start(stage == 0 ? teams.stages - 1 : stage - 1, row + (teams.stages - 1) * step);
    Rows::await(teams.stages - 1);
    // For the next group, so that one barrier serves both this and the sums.
    number.put(memory_of(turn ^ 1), next_number);
    next_number = number.fetch(p, row + 2 * step);
    if constexpr (kRank > 0) {
      if (block_row + step < rows) draw(turn ^ 1, row + step);
    }

    float dy[kRows][kColumns] = {}, normalised[kRows][kColumns], weight[kColumns];
    float numbers[kRows][Layout::kPaddedNumbers], mean[kRows], inverse_deviation[kRows];
#pragma unroll
    for (int q = 0; q < kRows; ++q) {
#pragma unroll
      for (int i = 0; i < Layout::kPaddedNumbers; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(memory.numbers + q * Layout::kPaddedNumbers + i);
        numbers[q][i] = four.x, numbers[q][i + 1] = four.y, numbers[q][i + 2] = four.z,
        numbers[q][i + 3] = four.w;
      }
      mean[q] = numbers[q][kMasks * kRank], inverse_deviation[q] = numbers[q][kMasks * kRank + 1];
    }
    copies.read(stage, Rows::kX, normalised);
    if (p.dx != nullptr) copies.read(stage, Rows::kDRows, dy);
    if (kNormalise) {
      place.read(weights, thread, weight);
      normalise(normalised, mean, inverse_deviation);
    }
    if constexpr (kRank > 0) {
      float y[kRows][kColumns], bias[kColumns];
      if (kNormalise) place.read(weights + layout.row_floats, thread, bias);
      recompute_rows<T, kNormalise>(normalised, weight, bias, y);
      down_backward<kRank, kMasks>(memory, layout.words, a_rows, layout.row_floats, thread, place, numbers, y,
                                   dy, d_a);
    }
    float sums[Layout::kSums] = {};
    if (kNormalise && p.dx != nullptr) {
      weigh(dy, normalised, weight, sums);
      team_sums(sums, memory.sums, team, thread, teams.threads);
    } else {
      team_barrier(team, teams.threads);
    }
    if (p.dx != nullptr) {
      float dx[kRows][kColumns] = {};
      if (p.residual != nullptr) copies.read(stage, Rows::kResidual, dx);
      write_dx<T, kNormalise>(p, row, column, dy, normalised, sums, inverse_deviation, dx);
    }
    stage = stage + 1 == teams.stages ? 0 : stage + 1;
  }
  Rows::await(
      0);  // copies for groups beyond the last row arrive where the sums go, or after the block has gone
  if constexpr (kRank > 0) {
    write_part<kRank, kMasks>(a_rows, layout.row_floats, p, thread, team, teams.count, place, d_a);
  }
}

template <typename T, int kRank, int kMasks, bool kNormalise>
void launch(const AppendBackward& p, int multiprocessors, cudaStream_t stream) {
  const Teams teams = teams_of<T, kRank, kMasks>(p.width, device_limits().shared_memory_bytes);
  const int shared_bytes = SharedLayout<T, kRank, kMasks>(p.width, teams).bytes;
  auto* kernel = append_backward_kernel<T, kRank, kMasks, kNormalise>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  const int blocks = kRank > 0 ? p.parts : multiprocessors;
  kernel<<<blocks, teams.count * teams.threads, shared_bytes, stream>>>(p, teams);
}

/// Normalised rows may have three masks, others have one.
template <typename T, int kRank>
void launch_with_rank(const AppendBackward& p, int multiprocessors, cudaStream_t stream) {
  if (p.weight != nullptr) return launch<T, kRank, 3, true>(p, multiprocessors, stream);
  launch<T, kRank, 1, false>(p, multiprocessors, stream);
}

template <typename T, int kRank>
bool fits(int width) {  // of three masks, an upper bound for one
  return teams_of < T, kRank, kRank == 0 ? 1 : 3 > (width, device_limits().shared_memory_bytes).count > 0;
}

}  // namespace

bool append_backward_fits(int width, bool normalise, const DownUpdates& down, Element element) {
  const bool masks_fit = normalise || (down.ranks[1] == 0 && down.ranks[2] == 0);
  if (width % 8 != 0 || width > kWidestRow || !masks_fit) return false;
  bool result = false;
  with_type(element, [&](auto type) {
    using T = decltype(type);
    switch (padded_rank(down.ranks)) {
      case 0:
        result = fits<T, 0>(width);
        break;
      case 2:
        result = fits<T, 2>(width);
        break;
      case 4:
        result = fits<T, 4>(width);
        break;
      default:
        result = fits<T, 8>(width);
    }
  });
  return result;
}

void launch_append_backward(const AppendBackward& arguments, Element element, int multiprocessors,
                            cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    switch (padded_rank(arguments.down.ranks)) {
      case 0:
        return launch<T, 0, 1, true>(arguments, multiprocessors, stream);
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
