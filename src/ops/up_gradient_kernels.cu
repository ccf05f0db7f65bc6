#include "layer_norm_kernels.hpp"
#include "row_vectors.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kColumns = 8;
constexpr int kMostThreads = 128;
constexpr int kSlice = 64;  ///< rows whose a lie in shared memory at a time

/// Rows begin … begin + kLoads − 1 of a thread's columns, zeros from `end` on.
template <typename T, int kLoads>
__device__ __forceinline__ void load_rows(const T* columns, std::int64_t stride, std::int64_t begin,
                                          std::int64_t end, Packed<T, kColumns> (&rows)[kLoads]) {
#pragma unroll
  for (int l = 0; l < kLoads; ++l) {
    rows[l] = {};
    if (begin + l < end) rows[l] = load_packed<T, kColumns>(columns + (begin + l) * stride, 0);
  }
}

/// Block (k, b) sums over the rows of part k for its columns of one update's third of dy, kColumns to a
/// thread.
template <typename T, int kRank, int kLoads>
__global__ void __launch_bounds__(kMostThreads)
    up_gradient_kernel(const UpGradient p, const int blocks_per_update) {
  __shared__ float a[kSlice][kRank];
  const int update = static_cast<int>(blockIdx.y) / blocks_per_update;
  const int column = (static_cast<int>(blockIdx.y) % blocks_per_update * static_cast<int>(blockDim.x) +
                      static_cast<int>(threadIdx.x)) *
                     kColumns;
  const int rank = update == 0 ? p.ranks[0] : update == 1 ? p.ranks[1] : p.ranks[2];
  if (rank == 0) return;
  const int first = first_row(p.ranks, update);
  const std::int64_t rows_per_part = (p.row_count + p.parts - 1) / p.parts;
  const std::int64_t begin = min(std::int64_t{blockIdx.x} * rows_per_part, p.row_count);
  const std::int64_t end = min(begin + rows_per_part, p.row_count);
  const bool owns_columns = column < p.width;
  const T* dy = static_cast<const T*>(p.dy) + std::int64_t{update} * p.width + column;

  float sums[kColumns][kRank] = {};
  for (std::int64_t slice = begin; slice < end; slice += kSlice) {
    const int rows = static_cast<int>(min(std::int64_t{kSlice}, end - slice));
    Packed<T, kColumns> next[kLoads];
    load_rows(dy, p.dy_stride, slice, owns_columns ? slice + rows : slice, next);
    __syncthreads();
    for (int item = threadIdx.x; item < kSlice * kRank; item += blockDim.x) {
      const int row = item / kRank, r = item % kRank;
      const bool used = row < rows && r < rank;
      a[row][r] = used ? to_float(row_of<T>(p.a, slice + row, p.a_stride)[first + r]) : 0.0f;
    }
    __syncthreads();
    if (!owns_columns) continue;
    for (int row = 0; row < rows; row += kLoads) {
      Packed<T, kColumns> loaded[kLoads];
#pragma unroll
      for (int l = 0; l < kLoads; ++l) loaded[l] = next[l];
      load_rows(dy, p.dy_stride, slice + row + kLoads, slice + rows, next);
#pragma unroll
      for (int l = 0; l < kLoads; ++l) {
        float values[kColumns];
        unpack(loaded[l], values);
#pragma unroll
        for (int r = 0; r < kRank; ++r) {
#pragma unroll
          for (int k = 0; k < kColumns; ++k) sums[k][r] = fmaf(values[k], a[row + l][r], sums[k][r]);
        }
      }
    }
  }
  if (!owns_columns) return;
  const float scaling = update == 0 ? p.scalings[0] : update == 1 ? p.scalings[1] : p.scalings[2];
  float* d_b =
      p.d_b + blockIdx.x * p.part_stride + std::int64_t{first} * p.width + std::int64_t{column} * rank;
#pragma unroll
  for (int k = 0; k < kColumns; ++k) {
#pragma unroll
    for (int r = 0; r < kRank; ++r) sums[k][r] *= scaling;
  }
  if (rank == kRank) {  // [kColumns, rank] in one piece
    store_packed(d_b, 0, pack<float>(reinterpret_cast<float(&)[kColumns * kRank]>(sums)));
    return;
  }
#pragma unroll
  for (int k = 0; k < kColumns; ++k) {
#pragma unroll
    for (int r = 0; r < kRank; ++r) {
      if (r < rank) d_b[k * rank + r] = sums[k][r];
    }
  }
}

template <typename T, int kRank, int kLoads>
void launch(const UpGradient& p, cudaStream_t stream) {
  const int vectors = p.width / kColumns;
  const int most = vectors < kMostThreads ? vectors : kMostThreads;
  const int threads = (most + 31) / 32 * 32;
  const int blocks = (vectors + threads - 1) / threads;
  const dim3 grid(static_cast<unsigned>(p.parts), static_cast<unsigned>(blocks * p.updates));
  up_gradient_kernel<T, kRank, kLoads><<<grid, threads, 0, stream>>>(p, blocks);
}

}  // namespace

void launch_up_gradient(const UpGradient& p, Element element, cudaStream_t stream) {
  with_type(element, [&](auto type) {
    using T = decltype(type);
    switch (padded_rank(p.ranks)) {
      case 2:
        return launch<T, 2, 8>(p, stream);
      case 4:
        return launch<T, 4, 8>(p, stream);
      case 8:
        return launch<T, 8, 4>(p, stream);
    }
  });
}

}  // namespace clip_lora::ops
