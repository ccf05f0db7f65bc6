#include "layer_norm_kernels.hpp"
#include "row_vectors.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

/// Where column c of a row lies in shared memory. Of a vector of eight neighbours, lanes read the first four
/// and then the last four, each time 32 lanes' 16-byte pieces side by side.
struct LanePlace {
  __device__ __forceinline__ int operator()(int column) const {
    const int vector = column / 8;
    return ((vector / 32 * 2 + column % 8 / 4) * 32 + vector % 32) * 4 + column % 4;
  }
};
CLIP_LORA_HOST_DEVICE int shared_row(int width) { return (width + 255) / 256 * 256; }

/// Eight columns of a row in shared memory: those of `vector`.
__device__ __forceinline__ void read_shared(const float* row, int vector, float (&values)[8]) {
  const auto* pieces = reinterpret_cast<const float4*>(row) + vector / 32 * 64 + vector % 32;
  const float4 first = pieces[0], last = pieces[32];
  values[0] = first.x, values[1] = first.y, values[2] = first.z, values[3] = first.w;
  values[4] = last.x, values[5] = last.y, values[6] = last.z, values[7] = last.w;
}

/// A row of x; lane l owns the vectors l, l + 32, …. Columns beyond the width are zeros.
template <typename T, int kVectors>
struct LoadedRow {
  Packed<T, 8> vectors[kVectors];

  __device__ __forceinline__ void load(const AppendForward& p, std::int64_t row, int lane) {
    const T* source = row_of<T>(p.x, row, p.width) + 8 * lane;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      vectors[i] = {};
      if (8 * (lane + 32 * i) < p.width && row < p.row_count) vectors[i] = load_packed<T, 8>(source, 256 * i);
    }
  }
};

__device__ __forceinline__ float sum_of(const float (&v)[8]) {
  return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

struct Statistics {
  float mean, inverse_deviation;
};

/// Mean and deviation of a row, and x − mean in place of x (0 beyond the width).
template <int kVectors>
__device__ __forceinline__ Statistics centre(float (&x)[kVectors][8], int width, int lane, float epsilon) {
  const float inverse_width = 1.0f / static_cast<float>(width);
  float sum[1] = {}, squares[1] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) sum[0] += sum_of(x[i]);
  warp_sums(sum);
  const float mean = sum[0] * inverse_width;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    const float shift = 8 * (lane + 32 * i) < width ? mean : 0.0f;
    float square[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      x[i][k] -= shift;
      square[k] = x[i][k] * x[i][k];
    }
    squares[0] += sum_of(square);
  }
  warp_sums(squares);
  return {mean, rsqrtf(fmaf(squares[0], inverse_width, epsilon))};
}

/// Adds to sums[mask · kRank + r] what the row's vector i contributes to A dropout(y).
template <int kRank, int kMasks, int kSums>
__device__ __forceinline__ void project_down(const float (&y)[8], const std::uint32_t (&bits)[3], int i,
                                             int vector, const float* a_rows, int row_floats,
                                             float (&sums)[kSums]) {
#pragma unroll
  for (int mask = 0; mask < kMasks; ++mask) {
    float a[kRank][8];
#pragma unroll
    for (int r = 0; r < kRank; ++r) read_shared(a_rows + (mask * kRank + r) * row_floats, vector, a[r]);
#pragma unroll
    for (int k = 0; k < 8; ++k) {
#pragma unroll
      for (int r = 0; r < kRank; ++r) {
        add_where(bits[mask], 1u << (i % 4 * 8 + k), y[k], a[r][k], sums[mask * kRank + r]);
      }
    }
  }
}

/// The lane that holds, after scattered_warp_sums, what this lane writes as the column of its number; −1: a
/// zero.
template <int kRank, int kSums>
__device__ __forceinline__ int source_of_column(const DownUpdates& down, int lane) {
  const UpdateRow from = update_row(down.ranks, lane);
  return from.mask < 0 ? -1 : (from.mask * kRank + from.rank) * (32 / kSums);
}

template <typename T, int kRank, int kMasks, int kVectors, int kBlocks, bool kPrefetch, bool kNormalise>
__global__ void __launch_bounds__(kThreads, kBlocks) append_forward_kernel(const AppendForward p) {
  constexpr int kSums = next_power_of_two(kRank == 0 ? 1 : kMasks * kRank);
  extern __shared__ float4 shared_memory[];
  auto* a_rows = reinterpret_cast<float*>(shared_memory);
  const int row_floats = shared_row(p.width);
  const float* weights = a_rows + kMasks * kRank * row_floats;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const std::int64_t step = std::int64_t{gridDim.x} * kWarps;
  std::int64_t row = std::int64_t{blockIdx.x} * kWarps + warp_index();

  LoadedRow<T, kVectors> loaded;
  loaded.load(p, row, lane);
  const DropoutKey key = kRank > 0 ? read_key(p.down.draw) : DropoutKey{};
  fill_shared_rows<T, kRank, kMasks>(a_rows, row_floats, p.down, p.weight, p.bias, p.width, LanePlace{});
  __syncthreads();
  const int source = kRank > 0 ? source_of_column<kRank, kSums>(p.down, lane) : 0;

  for (; row < p.row_count; row += step) {
    float x[kVectors][8];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) unpack(loaded.vectors[i], x[i]);
    if (kPrefetch) loaded.load(p, row + step, lane);

    Statistics statistics = {};
    if (kNormalise) statistics = centre(x, p.width, lane, p.epsilon);
    T* target = row_of<T>(p.rows, row, p.width + p.down.columns);
    float sums[kSums] = {};
    std::uint32_t bits[3];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      if (256 * i >= p.width) break;
      const int vector = lane + 32 * i;
      if (kRank > 0 && i % 4 == 0) {
        draw_words(p.down.draw, key, row_number(p.down.draw, row), word_of_vector(vector), kMasks, bits);
      }
      if (kNormalise) {
        float weight[8], bias[8];
        read_shared(weights, vector, weight);
        read_shared(weights + row_floats, vector, bias);
#pragma unroll
        for (int k = 0; k < 8; ++k)
          x[i][k] = fmaf(x[i][k] * statistics.inverse_deviation, weight[k], bias[k]);
      }
      const Packed<T, 8> rounded = pack<T>(x[i]);
      if (8 * vector < p.width) store_packed(target, 8 * vector, rounded);
      if constexpr (kRank > 0) {
        unpack(rounded, x[i]);
        project_down<kRank, kMasks>(x[i], bits, i, vector, a_rows, row_floats, sums);
      }
    }

    if (kNormalise && lane == 0) {
      p.mean[row] = statistics.mean;
      p.inverse_deviation[row] = statistics.inverse_deviation;
    }
    if (kRank > 0) {
      const float held = scattered_warp_sums(sums);
      const float value = __shfl_sync(~0u, held, source < 0 ? 0 : source);
      if (lane < p.down.columns) target[p.width + lane] = from_float<T>(source < 0 ? 0.0f : value);
    }
    if (!kPrefetch) loaded.load(p, row + step, lane);
  }
}

template <typename T, int kRank, int kMasks, int kVectors, int kBlocks, bool kPrefetch, bool kNormalise>
void launch(const AppendForward& p, int multiprocessors, cudaStream_t stream) {
  auto* kernel = append_forward_kernel<T, kRank, kMasks, kVectors, kBlocks, kPrefetch, kNormalise>;
  const int shared_bytes = (kMasks * kRank + 2) * shared_row(p.width) * static_cast<int>(sizeof(float));
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
  int resident = 0;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, kThreads,
                                                static_cast<std::size_t>(shared_bytes));
  const std::int64_t needed = (p.row_count + kWarps - 1) / kWarps;
  const std::int64_t held = std::int64_t{resident} * multiprocessors;
  kernel<<<static_cast<unsigned>(needed < held ? needed : held), kThreads, shared_bytes, stream>>>(p);
}

/// Normalised rows may have three masks, others have one.
template <typename T, int kVectors>
void launch_for_rank(const AppendForward& p, int multiprocessors, cudaStream_t stream) {
  constexpr bool kPrefetch = kVectors <= 4;
  constexpr int kBlocks = kVectors <= 4 ? 2 : 1;
  const bool normalise = p.weight != nullptr;
  const auto run = [&](auto launch_kernel) { launch_kernel(p, multiprocessors, stream); };
  switch (padded_rank(p.down.ranks)) {
    case 0:
      return run(launch<T, 0, 1, kVectors, kBlocks + 1, kPrefetch, true>);
    case 2:
      return run(normalise ? launch<T, 2, 3, kVectors, kBlocks, kPrefetch, true>
                           : launch<T, 2, 1, kVectors, kBlocks, kPrefetch, false>);
    case 4:
      return run(normalise ? launch<T, 4, 3, kVectors, kBlocks, kPrefetch, true>
                           : launch<T, 4, 1, kVectors, kBlocks, kPrefetch, false>);
    default:
      return run(normalise ? launch<T, 8, 3, kVectors, kBlocks, false, true>
                           : launch<T, 8, 1, kVectors, kBlocks, kPrefetch, false>);
  }
}

}  // namespace

int append_forward_shared_bytes(int width, bool normalise, const DownUpdates& down) {
  const bool masks_fit = normalise || (down.ranks[1] == 0 && down.ranks[2] == 0);
  if (width % 8 != 0 || width > kWidestRow || down.columns > 32 || !masks_fit) return -1;
  const int rows = (normalise ? 3 : 1) * padded_rank(down.ranks) + 2;
  return rows * shared_row(width) * static_cast<int>(sizeof(float));
}

void launch_append_forward(const AppendForward& arguments, Element element, int multiprocessors,
                           cudaStream_t stream) {
  if (arguments.row_count == 0) return;
  with_type(element, [&](auto type) {
    using T = decltype(type);
    if (arguments.width <= 768) return launch_for_rank<T, 3>(arguments, multiprocessors, stream);
    if (arguments.width <= 1024) return launch_for_rank<T, 4>(arguments, multiprocessors, stream);
    launch_for_rank<T, 8>(arguments, multiprocessors, stream);
  });
}

}  // namespace clip_lora::ops
