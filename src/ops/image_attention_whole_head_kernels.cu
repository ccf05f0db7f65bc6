#include "device_limits.hpp"
#include "image_attention_backward.cuh"
#include "image_attention_whole_head.hpp"

// The backward of heads that fit a thread block: dS stays in shared memory, so that each product is computed
// once (five of them, not the seven of blocks that hold either keys or queries). A warp owns 16 rows: as
// keys, whose dK and dV it adds up over the queries, and then as queries, for dQ.
namespace clip_lora::ops {
namespace {

constexpr int kWidth = 64;
constexpr int kMaxThreads = 512;                        // 128 registers each
constexpr int kOwnUnits = kTileRows * kWidth / 8 / 32;  // of 16 bytes, that a lane has of a tile of rows

/// Where things lie in shared memory, for heads of `rows` rows.
struct WholeHead {
  int rows;

  __host__ __device__ int matrix_bytes() const { return rows * kPitch<kWidth> * 2; }
  /// Elements from a row of dSᵀ to the next: an odd number of 16-byte units.
  __host__ __device__ int score_pitch() const { return rows + 8; }
  __host__ __device__ int scores() const { return 4 * matrix_bytes(); }  // after Q, dO, K and V
  __host__ __device__ int log_sum_exp() const { return scores() + rows * score_pitch() * 2; }
  __host__ __device__ int bytes() const { return log_sum_exp() + 2 * rows * static_cast<int>(sizeof(float)); }
};

/// What a lane needs for delta of the warp's rows: lane / 8 + 4i of them.
struct DeltaRows {
  uint4 o[kOwnUnits];
  float log_sum_exp[kOwnUnits];
};

[[maybe_unused]] __device__ __forceinline__ int own_row(int i) { return i * 4 + lane() / 8; }
[[maybe_unused]] __device__ __forceinline__ int own_column() { return lane() % 8 * 8; }

template <typename T>
__device__ __forceinline__ DeltaRows load_delta_rows(const Head<T>& head) {
  DeltaRows rows;
#pragma unroll
  for (int i = 0; i < kOwnUnits; ++i) {
    const int row = warp() * kTileRows + own_row(i);
    rows.o[i] = load_eight(head.o, row, own_column());
    rows.log_sum_exp[i] = __ldg(head.log_sum_exp + min(row, head.q.length - 1));
  }
  return rows;
}

/// log_sum_exp · log2(e) and delta of the warp's rows, to shared memory. Beyond the last query P is nothing.
template <typename T>
__device__ __forceinline__ void prepare_queries(float* log_sum_exp, float* delta, const DeltaRows& rows,
                                                const unsigned char* d_rows, int length) {
#pragma unroll
  for (int i = 0; i < kOwnUnits; ++i) {
    const int row = warp() * kTileRows + own_row(i);
    const uint4 d_o = *reinterpret_cast<const uint4*>(d_rows + (row * kPitch<kWidth> + own_column()) * 2);
    const float sum = sum_of_eight(dot_eight<T>(rows.o[i], d_o));
    if (lane() % 8 != 0) continue;
    log_sum_exp[row] = row < length ? rows.log_sum_exp[i] * kLog2E : INFINITY;
    delta[row] = sum;
  }
}

/// dK and dV of the warp's keys over all queries; dSᵀ goes to shared memory, [keys, queries].
template <typename T>
__device__ __forceinline__ void key_gradients(KeyGradients<kWidth>& gradients, unsigned char* shared_memory,
                                              const WholeHead& layout, int length, float scale) {
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const int matrix_bytes = layout.matrix_bytes();
  const std::uint32_t own = shared + warp() * kTileBytes<kWidth>;
  LeftFragment k[kWidth / 16];
  LeftFragment v[kWidth / 16];
  load_tile<kWidth>(k, own + 2 * matrix_bytes);
  load_tile<kWidth>(v, own + 3 * matrix_bytes);
  const int key = warp() * kTileRows + lane() / 4;
  const int lower = 4 * layout.score_pitch();  // pairs of scores from key g to key g + 8
  const bool has_upper = key < length;
  const bool has_lower = key + 8 < length;
  auto* d_scores_to = reinterpret_cast<std::uint32_t*>(shared_memory + layout.scores() +
                                                       (key * layout.score_pitch() + lane() % 4 * 2) * 2);
  std::uint32_t q = shared;
  const float* log_sum_exp = reinterpret_cast<const float*>(shared_memory + layout.log_sum_exp());
  const float* end = log_sum_exp + layout.rows;
#pragma unroll 1
  for (; log_sum_exp < end; log_sum_exp += kTileRows) {
    LeftFragment d_scores;
    add_query_tile<T, kWidth>(gradients, d_scores, k, v, q, q + matrix_bytes, log_sum_exp,
                              log_sum_exp + layout.rows, scale);
    // Keys beyond the last one have exponentials without bound.
    d_scores_to[0] = has_upper ? d_scores[0] : 0;
    d_scores_to[lower] = has_lower ? d_scores[1] : 0;
    d_scores_to[4] = has_upper ? d_scores[2] : 0;
    d_scores_to[lower + 4] = has_lower ? d_scores[3] : 0;
    d_scores_to += kTileRows / 2;
    q += kTileBytes<kWidth>;
  }
}

/// dQ of the warp's queries: dS K.
template <typename T>
__device__ __forceinline__ void query_gradients(Accumulator (&d_q)[kWidth / 8], std::uint32_t shared,
                                                const WholeHead& layout) {
  // dSᵀ's tiles of keys by the warp's queries, transposed when loaded: left operands want queries 0 to 7 and
  // 8 to 15 of keys 0 to 7, then of 8 to 15.
  const int key = lane() % 8 + lane() / 16 * 8;
  const int query = warp() * kTileRows + lane() / 8 % 2 * 8;
  std::uint32_t d_scores_from = shared + layout.scores() + (key * layout.score_pitch() + query) * 2;
  std::uint32_t keys = shared + 2 * layout.matrix_bytes() + offset_for_product<kWidth>();
  const std::uint32_t end = keys + layout.matrix_bytes();
#pragma unroll 1
  for (; keys < end; keys += kTileBytes<kWidth>) {
    LeftFragment d_scores;
    load_matrices_transposed(d_scores, d_scores_from);
    add_products<T, kWidth>(d_q, d_scores, keys);
    d_scores_from += kTileRows * layout.score_pitch() * 2;
  }
}

/// Thread blocks go through the heads; most of the next head's rows arrive while dQ is computed.
template <typename T>
__global__ void __launch_bounds__(kMaxThreads)
    attend_backward_whole_head(const ImageAttention attention, const WholeHead layout, const int heads) {
#ifdef CLIP_LORA_TENSOR_CORE
  extern __shared__ __align__(16) unsigned char shared_memory[];
  const auto shared = static_cast<std::uint32_t>(__cvta_generic_to_shared(shared_memory));
  const auto length = static_cast<int>(attention.length);
  const float scale = score_scale(attention);
  const int matrix_bytes = layout.matrix_bytes();
  const int first = warp() * kTileRows;
  auto* log_sum_exp = reinterpret_cast<float*>(shared_memory + layout.log_sum_exp());
  const std::uint32_t own = shared + warp() * kTileBytes<kWidth>;  // the warp's rows of Q in shared memory
  // Those of K and V, by way of which it stores tiles when it is done with them.
  unsigned char* own_k = shared_memory + 2 * matrix_bytes + warp() * kTileBytes<kWidth>;
  unsigned char* own_v = own_k + matrix_bytes;

  const auto start_all_but_keys = [&](const Head<T>& head) {
    start_tile<T, kWidth>(own, head.q, first);
    start_tile<T, kWidth>(own + matrix_bytes, head.d_rows, first);
    start_tile<T, kWidth>(own + 3 * matrix_bytes, head.v, first);
    close_copies();
    return load_delta_rows(head);
  };
  const auto prepare = [&](const DeltaRows& rows) {
    await_copies<0>();
    __syncwarp();
    prepare_queries<T>(log_sum_exp, log_sum_exp + layout.rows, rows, shared_memory + matrix_bytes, length);
  };
  const auto start_keys = [&](const Head<T>& head) {
    start_tile<T, kWidth>(own + 2 * matrix_bytes, head.k, first);
    close_copies();
  };
  int index = static_cast<int>(blockIdx.x);
  prepare(start_all_but_keys(head_of<T, kWidth>(attention, index)));
  start_keys(head_of<T, kWidth>(attention, index));
  while (index < heads) {
    await_copies<0>();
    __syncthreads();
    {
      KeyGradients<kWidth> gradients = {};
      key_gradients<T>(gradients, shared_memory, layout, length, scale * kLog2E);
      const Head<T> head = head_of<T, kWidth>(attention, index);
      store_tile<T, kWidth>(own_v, head.d_k, first, gradients.d_k, scale, scale);
      store_tile<T, kWidth>(own_v, head.d_v, first, gradients.d_v, 1.0F, 1.0F);
    }
    __syncthreads();
    const int next = index + static_cast<int>(gridDim.x);
    Accumulator d_q[kWidth / 8] = {};
    if (next < heads) {
      const DeltaRows rows = start_all_but_keys(head_of<T, kWidth>(attention, next));
      query_gradients<T>(d_q, shared, layout);
      prepare(rows);
    } else {
      query_gradients<T>(d_q, shared, layout);
    }
    __syncthreads();
    store_tile<T, kWidth>(own_k, head_of<T, kWidth>(attention, index).d_q, first, d_q, scale, scale);
    __syncwarp();
    if (next < heads) start_keys(head_of<T, kWidth>(attention, next));
    index = next;
  }
#endif
}

WholeHead layout_of(const ImageAttention& attention) {
  return {divide_up(attention.length, kTileRows) * kTileRows};
}

template <typename T>
void launch(const ImageAttention& attention, cudaStream_t stream) {
  const WholeHead layout = layout_of(attention);
  const auto heads = static_cast<int>(attention.images * attention.heads);
  const int threads = layout.rows / kTileRows * 32;
  const auto kernel = attend_backward_whole_head<T>;
  const int blocks = resident_blocks(kernel, threads, layout.bytes(), heads);
  kernel<<<blocks, threads, layout.bytes(), stream>>>(attention, layout, heads);
}

}  // namespace

bool whole_head_backward_fits(const ImageAttention& attention) {
  const WholeHead layout = layout_of(attention);
  return attention.head_width == kWidth && layout.rows / kTileRows * 32 <= kMaxThreads &&
         layout.bytes() <= device_limits().shared_memory_bytes;
}

void launch_whole_head_backward(const ImageAttention& attention, cudaStream_t stream) {
  if (attention.element == Element::kFloat16) return launch<__half>(attention, stream);
  launch<__nv_bfloat16>(attention, stream);
}

}  // namespace clip_lora::ops
