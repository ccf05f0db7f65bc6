#include "device_limits.hpp"
#include "image_attention_backward.cuh"
#include "image_attention_kernels.hpp"
#include "image_attention_whole_head.hpp"

// A thread block computes either dK and dV of some keys, over all queries, or dQ of some queries, over all
// keys: each computes S and dP anew, so that nothing is added up between thread blocks and shared memory does
// not grow with L.
namespace clip_lora::ops {
namespace {

/// log_sum_exp · log2(e) and delta of a block of queries in shared memory, by all threads: eight to a row.
/// Beyond the last query P is nothing.
template <typename T, int kWidth>
__device__ __forceinline__ void prepare_queries(float* log_sum_exp, float* delta, const Head<T>& head,
                                                int first, int count) {
  constexpr int kAtOnce = 4;  // rows of a thread, whose loads overlap
  const int place = static_cast<int>(threadIdx.x) % 8 * 8;
  const int step = static_cast<int>(blockDim.x) / 8;
  for (int base = static_cast<int>(threadIdx.x) / 8; base < count; base += kAtOnce * step) {
    float sums[kAtOnce] = {};
    float own[kAtOnce];
#pragma unroll
    for (int column = place; column < kWidth; column += 64) {
      uint4 o[kAtOnce];
      uint4 d_o[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        o[i] = load_eight(head.o, first + base + i * step, column);
        d_o[i] = load_eight(head.d_rows, first + base + i * step, column);
        own[i] = __ldg(head.log_sum_exp + min(first + base + i * step, head.q.length - 1));
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) sums[i] += dot_eight<T>(o[i], d_o[i]);
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int row = base + i * step;
      const float sum = sum_of_eight(sums[i]);
      if (place != 0 || row >= count) continue;
      delta[row] = sum;
      log_sum_exp[row] = first + row < head.q.length ? own[i] * kLog2E : INFINITY;
    }
  }
}

/// Where a thread block of the two passes keeps things in shared memory: in each stage two matrices' blocks
/// of rows and two numbers for each row, then two tiles of each warp's own.
template <int kWidth>
struct TwoPassLayout {
  int block;
  int stages;

  __device__ int matrix_bytes() const { return block * kPitch<kWidth> * 2; }
  __device__ int stage(int index) const { return index * block * row_bytes<kWidth>(2); }
  __device__ int numbers(int index) const { return stage(index) + 2 * matrix_bytes(); }
  __device__ int own(int index) const {
    return stage(stages) + (2 * warp() + index) * static_cast<int>(kTileBytes<kWidth>);
  }
};

/// The warp loads 16 rows of two matrices as left operands, by way of its own tiles.
template <typename T, int kWidth>
__device__ __forceinline__ void load_tiles(LeftFragment (&a)[kWidth / 16], LeftFragment (&b)[kWidth / 16],
                                           const HeadMatrix<const T>& from_a,
                                           const HeadMatrix<const T>& from_b, int first, std::uint32_t own) {
  start_tile<T, kWidth>(own, from_a, first);
  start_tile<T, kWidth>(own + kTileBytes<kWidth>, from_b, first);
  close_copies();
  await_copies<0>();
  __syncwarp();
  load_tile<kWidth>(a, own);
  load_tile<kWidth>(b, own + kTileBytes<kWidth>);
}

/// dK and dV of the warp's keys; Q and dO pass through shared memory, with their log_sum_exp and delta.
template <typename T, int kWidth>
__device__ void key_gradients(const TwoPassLayout<kWidth>& layout, const Head<T>& head, int first_key,
                              float scale, unsigned char* shared_memory) {
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const int length = head.q.length;
  const int matrix_bytes = layout.matrix_bytes();
  LeftFragment k[kWidth / 16];
  LeftFragment v[kWidth / 16];
  load_tiles<T, kWidth>(k, v, head.k, head.v, first_key, shared + layout.own(0));
  KeyGradients<kWidth> gradients = {};
  const auto start = [&](int, int first, int stage) {
    const int count = min(layout.block, (length - first + kTileRows - 1) / kTileRows * kTileRows);
    const std::uint32_t to = shared + layout.stage(stage);
    start_block<T, kWidth>(to, head.q, first, count);
    start_block<T, kWidth>(to + matrix_bytes, head.d_rows, first, count);
    auto* numbers = reinterpret_cast<float*>(shared_memory + layout.numbers(stage));
    prepare_queries<T, kWidth>(numbers, numbers + layout.block, head, first, count);
  };
  const auto use = [&](int, int first, int stage) {
    if (first_key >= length) return;
    const auto* log_sum_exp = reinterpret_cast<const float*>(shared_memory + layout.numbers(stage));
    const float* end = log_sum_exp + min(layout.block, length - first);
    std::uint32_t q = shared + layout.stage(stage);
#pragma unroll 1
    for (; log_sum_exp < end; log_sum_exp += kTileRows) {
      LeftFragment d_scores;
      add_query_tile<T, kWidth>(gradients, d_scores, k, v, q, q + matrix_bytes, log_sum_exp,
                                log_sum_exp + layout.block, scale * kLog2E);
      q += kTileBytes<kWidth>;
    }
  };
  for_each_block(static_cast<int>(gridDim.x), length, layout.block, start, use);
  store_tile<T, kWidth>(shared_memory + layout.own(0), head.d_k, first_key, gradients.d_k, scale, scale);
  store_tile<T, kWidth>(shared_memory + layout.own(1), head.d_v, first_key, gradients.d_v, 1.0F, 1.0F);
}

/// Of the warp's 16 queries, rows g and g + 8 in this lane.
struct QueryNumbers {
  float log_sum_exp[2];  // times log2(e)
  float delta[2];
};

/// What a tile of 16 keys, the first of which is key `first`, adds to dQ of the warp's queries.
template <typename T, int kWidth>
__device__ __forceinline__ void add_key_tile(Accumulator (&d_q)[kWidth / 8],
                                             const LeftFragment (&q)[kWidth / 16],
                                             const LeftFragment (&d_rows)[kWidth / 16], std::uint32_t keys,
                                             std::uint32_t values, const QueryNumbers& numbers, int first,
                                             int length, float scale) {
  Accumulator scores[2] = {};
  Accumulator d_scores[2] = {};
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    add_scores_step<T, kWidth>(scores, q, keys + offset_for_transpose<kWidth>(), step);
    add_scores_step<T, kWidth>(d_scores, d_rows, values + offset_for_transpose<kWidth>(), step);
  }
  const float(&sums)[2] = numbers.log_sum_exp;
  const float(&deltas)[2] = numbers.delta;
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    differentiate(scores[side], d_scores[side], {sums[0], sums[0], sums[1], sums[1]},
                  {deltas[0], deltas[0], deltas[1], deltas[1]}, scale);
  }
  if (first + kTileRows > length) {  // keys beyond the last one have exponentials without bound
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (first + i / 4 * 8 + lane() % 4 * 2 + i % 2 >= length) d_scores[i / 4][i % 4] = 0.0F;
    }
  }
  LeftFragment left;
  to_left<T>(left, d_scores);
  add_products<T, kWidth>(d_q, left, keys + offset_for_product<kWidth>());
}

/// The sums over a row of two tiles' products, in every lane that has the row.
template <typename T, int kWidth>
__device__ __forceinline__ void row_products(float (&sums)[2], const LeftFragment (&a)[kWidth / 16],
                                             const LeftFragment (&b)[kWidth / 16]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < kWidth / 8; ++i) {
      const float2 left = unpack<T>(a[i / 2][half + i % 2 * 2]);
      const float2 right = unpack<T>(b[i / 2][half + i % 2 * 2]);
      sum += left.x * right.x + left.y * right.y;
    }
    sums[half] = sum_of_row(sum);
  }
}

/// dQ of the warp's queries; K and V pass through shared memory.
template <typename T, int kWidth>
__device__ void query_gradients(const TwoPassLayout<kWidth>& layout, const Head<T>& head, int first_query,
                                float scale, unsigned char* shared_memory) {
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const int length = head.q.length;
  const int matrix_bytes = layout.matrix_bytes();
  LeftFragment q[kWidth / 16];
  LeftFragment d_rows[kWidth / 16];
  QueryNumbers numbers;
  load_tiles<T, kWidth>(q, d_rows, head.o, head.d_rows, first_query, shared + layout.own(0));
  row_products<T, kWidth>(numbers.delta, q, d_rows);
  __syncwarp();
  load_tiles<T, kWidth>(q, d_rows, head.q, head.d_rows, first_query, shared + layout.own(0));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_query + half * 8 + lane() / 4;
    numbers.log_sum_exp[half] = row < length ? head.log_sum_exp[row] * kLog2E : INFINITY;
  }
  Accumulator d_q[kWidth / 8] = {};
  const auto start = [&](int, int first, int stage) {
    const int count = min(layout.block, (length - first + kTileRows - 1) / kTileRows * kTileRows);
    const std::uint32_t to = shared + layout.stage(stage);
    start_block<T, kWidth>(to, head.k, first, count);
    start_block<T, kWidth>(to + matrix_bytes, head.v, first, count);
  };
  const auto use = [&](int, int first, int stage) {
    if (first_query >= length) return;
    std::uint32_t keys = shared + layout.stage(stage);
    const int end = min(first + layout.block, length);
#pragma unroll 1
    for (int key = first; key < end; key += kTileRows) {
      add_key_tile<T, kWidth>(d_q, q, d_rows, keys, keys + matrix_bytes, numbers, key, length,
                              scale * kLog2E);
      keys += kTileBytes<kWidth>;
    }
  };
  for_each_block(static_cast<int>(gridDim.x), length, layout.block, start, use);
  store_tile<T, kWidth>(shared_memory + layout.own(0), head.d_q, first_query, d_q, scale, scale);
}

/// The first `parts` thread blocks of a head have keys, the other `parts` queries. kThreads bounds those of a
/// multiprocessor, and so the registers of a thread.
template <typename T, int kWidth, int kThreads>
__global__ void __launch_bounds__(kThreads)
    attend_backward_two_pass(const ImageAttention attention, const AttentionTiling tiling, const int stages) {
#ifdef CLIP_LORA_TENSOR_CORE
  extern __shared__ __align__(16) unsigned char shared_memory[];
  const int unit = static_cast<int>(blockIdx.x) % (2 * tiling.parts);
  const Head<T> head = head_of<T, kWidth>(attention, static_cast<int>(blockIdx.x) / (2 * tiling.parts));
  const TwoPassLayout<kWidth> layout{tiling.block, stages};
  const int first = (unit % tiling.parts * tiling.warps + warp()) * kTileRows;
  if (unit < tiling.parts) {
    key_gradients<T, kWidth>(layout, head, first, score_scale(attention), shared_memory);
  } else {
    query_gradients<T, kWidth>(layout, head, first, score_scale(attention), shared_memory);
  }
#endif
}

template <typename T, int kWidth>
void launch_two_pass(const ImageAttention& attention, cudaStream_t stream) {
  constexpr int kThreads = kWidth == 64 ? 512 : 256;
  const auto kernel = attend_backward_two_pass<T, kWidth, kThreads>;
  const int shared_memory = device_limits().shared_memory_bytes;
  // Where there is enough, two thread blocks share a multiprocessor, of whom one computes while the other
  // waits.
  const SharedUse use{kThreads > 256 && shared_memory > (128 << 10) ? shared_memory / 2 : shared_memory, 2, 2,
                      false};
  const AttentionTiling tiling = tile_head<kWidth>(attention, 8, use);
  const int stages = tiling.block < attention.length ? 2 : 1;
  const int bytes = shared_bytes<kWidth>(tiling, stages, use);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const auto blocks = static_cast<unsigned>(attention.images * attention.heads * tiling.parts * 2);
  kernel<<<blocks, tiling.warps * 32, bytes, stream>>>(attention, tiling, stages);
}

}  // namespace

bool image_attention_backward_fits(const ImageAttention& attention) {
  return tensor_core_takes(attention) && aligned(attention.qkv) && aligned(attention.rows) &&
         aligned(attention.d_rows) && aligned(attention.d_qkv);
}

void launch_image_attention_backward(const ImageAttention& attention, cudaStream_t stream) {
  if (whole_head_backward_fits(attention)) return launch_whole_head_backward(attention, stream);
  with_width(attention, [&](auto element, auto width) {
    launch_two_pass<decltype(element), width()>(attention, stream);
  });
}

}  // namespace clip_lora::ops
