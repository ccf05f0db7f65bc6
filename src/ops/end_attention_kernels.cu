#include <cmath>
#include <type_traits>

#include "device_limits.hpp"
#include "element.cuh"
#include "end_attention_kernels.hpp"

namespace clip_lora::ops {
namespace {

// A group of 1 … 16 lanes holds a head's row, eight dimensions a lane. Either each group has a sequence and
// head of its own, or, where sequences are long, all groups of a block share one and take keys in turn.

constexpr float kLog2E = 1.4426950408889634f;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPrefixThreads = 1024;
constexpr int kMostDimensions = 128;
constexpr int kBatch = 4;  // keys whose loads are under way together

using Eights = float[8];

/// Zeros where not `inside`.
template <typename T>
__device__ Eight<T> load(const T* from, bool inside) {
  Eight<T> loaded = {};
  if (inside) loaded = *reinterpret_cast<const Eight<T>*>(from);
  return loaded;
}

template <typename T>
__device__ void load(Eights& to, const T* from, bool inside) {
  const Eight<T> loaded = load(from, inside);
#pragma unroll
  for (int j = 0; j < 8; ++j) to[j] = to_float(loaded.values[j]);
}

template <typename T>
__device__ void store(T* to, const Eights& from, float factor) {
  Eight<T> packed;
#pragma unroll
  for (int j = 0; j < 8; ++j) packed.values[j] = from_float<T>(factor * from[j]);
  *reinterpret_cast<Eight<T>*>(to) = packed;
}

template <typename T>
__device__ float dot(const Eights& a, const Eight<T>& b) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < 8; ++j) sum += a[j] * to_float(b.values[j]);
  return sum;
}

template <typename T>
__device__ void add(Eights& to, const Eight<T>& from, float factor) {
#pragma unroll
  for (int j = 0; j < 8; ++j) to[j] += factor * to_float(from.values[j]);
}

/// Over the lanes of a group.
template <int kLanes>
__device__ float sum_of_group(float value, unsigned group) {
#pragma unroll
  for (int mask = 1; mask < kLanes; mask *= 2) value += __shfl_xor_sync(group, value, mask);
  return value;
}

/// What a group of lanes works on.
template <int kLanes, bool kShared>
struct Place {
  static constexpr int kGroups = kThreads / kLanes;

  std::int64_t unit;  // sequence · heads + head
  int sequence, head, dimension;
  int first_key, key_step;  // of this group among the sequence's keys
  unsigned group;           // its lanes
  bool inside, holds;       // whether there is such a unit; whether this lane has dimensions of it

  __device__ explicit Place(const EndAttention& a) {
    const int lane = static_cast<int>(threadIdx.x % 32), of_block = static_cast<int>(threadIdx.x) / kLanes;
    unit = kShared ? blockIdx.x : static_cast<std::int64_t>(blockIdx.x) * kGroups + of_block;
    inside = unit < a.sequences * a.heads;
    sequence = static_cast<int>(unit / a.heads);
    head = static_cast<int>(unit % a.heads);
    dimension = 8 * (lane % kLanes);
    holds = inside && dimension < a.head_width;
    first_key = kShared ? of_block : 0;
    key_step = kShared ? kGroups : 1;
    group = kLanes == 32 ? ~0u : ((1u << kLanes) - 1u) << (lane / kLanes * kLanes);
  }
};

/// The rows of a sequence's keys: the prefix's, then its own.
struct Keys {
  int prefix, first, count;

  __device__ Keys(const EndAttention& a, int sequence, bool inside)
      : prefix(static_cast<int>(a.prefix)), first(inside ? a.offsets[sequence] : 0) {
    count = inside ? prefix + a.offsets[sequence + 1] - first : 0;
  }
  __device__ std::int64_t row(int key) const { return key < prefix ? key : first + key - prefix; }
};

/// Sums over the groups of a block; the first group gets them.
template <int kLanes, int kOfWarps>
__device__ void sum_of_block(Eights& values, float (&shared)[kOfWarps][kMostDimensions]) {
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) {
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] += __shfl_xor_sync(~0u, values[j], mask);
  }
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  if (lane < kLanes) {
#pragma unroll
    for (int j = 0; j < 8; ++j) shared[warp][8 * lane + j] = values[j];
  }
  __syncthreads();
  if (threadIdx.x >= kLanes) return;
#pragma unroll
  for (int other = 1; other < kOfWarps; ++other) {
#pragma unroll
    for (int j = 0; j < 8; ++j) values[j] += shared[other][8 * lane + j];
  }
}

/// The largest of a block's values.
template <int kLanes>
__device__ float largest_of_block(float value, float (&shared)[kWarps]) {
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) value = fmaxf(value, __shfl_xor_sync(~0u, value, mask));
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
#pragma unroll
  for (int other = 0; other < kWarps; ++other) value = fmaxf(value, shared[other]);
  return value;
}

/// The sum of what each group holds once.
template <int kLanes>
__device__ float sum_of_block(float value, float (&shared)[kWarps]) {
#pragma unroll
  for (int mask = kLanes; mask < 32; mask *= 2) value += __shfl_xor_sync(~0u, value, mask);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int other = 0; other < kWarps; ++other) sum += shared[other];
  return sum;
}

template <typename T, int kLanes, bool kShared>
__global__ void __launch_bounds__(kThreads) attend_end(EndAttention a, float scale) {
  const Place<kLanes, kShared> place(a);
  const Keys keys(a, place.sequence, place.inside);
  const std::int64_t width = a.heads * a.head_width, column = place.head * a.head_width + place.dimension;
  const T* const kv = static_cast<const T*>(a.kv) + column;
  Eights query;
  load(query, static_cast<const T*>(a.q) + place.sequence * width + column, place.holds);

  float largest = -INFINITY, sum = 0.0f;  // of scores to the base 2, and of 2^(score − largest)
  Eights attended = {};
  for (int first = place.first_key; first < keys.count; first += kBatch * place.key_step) {
    Eight<T> key[kBatch], value[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int index = first + i * place.key_step;
      const T* const row = kv + keys.row(index) * 2 * width;
      key[i] = load(row, place.holds && index < keys.count);
      value[i] = load(row + width, place.holds && index < keys.count);
    }
    float scores[kBatch], now = largest;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const float score = sum_of_group<kLanes>(dot(query, key[i]), place.group) * (scale * kLog2E);
      scores[i] = first + i * place.key_step < keys.count ? score : -INFINITY;
      now = fmaxf(now, scores[i]);
    }
    const float shrink = exp2f(largest - now);
    largest = now;
    sum *= shrink;
#pragma unroll
    for (int j = 0; j < 8; ++j) attended[j] *= shrink;
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const float weight = exp2f(scores[i] - now);
      sum += weight;
      add(attended, value[i], weight);
    }
  }

  if constexpr (kShared) {
    __shared__ float of_warps[2][kWarps], dimensions[kWarps][kMostDimensions];
    const float now = largest_of_block<kLanes>(largest, of_warps[0]);
    const float shrink = exp2f(largest - now);  // 0 for a group without keys
    largest = now;
    sum = sum_of_block<kLanes>(sum * shrink, of_warps[1]);
#pragma unroll
    for (int j = 0; j < 8; ++j) attended[j] *= shrink;
    sum_of_block<kLanes>(attended, dimensions);
    if (threadIdx.x >= kLanes) return;
  }
  if (!place.holds) return;
  store(static_cast<T*>(a.attended) + place.sequence * width + column, attended, 1.0f / sum);
  if (place.dimension == 0) a.log_sum_exp[place.unit] = (largest + log2f(sum)) * (1.0f / kLog2E);
}

template <typename T, int kLanes, bool kShared>
__global__ void __launch_bounds__(kThreads) attend_end_backward(EndAttention a, float scale) {
  const Place<kLanes, kShared> place(a);
  const Keys keys(a, place.sequence, place.inside);
  const std::int64_t width = a.heads * a.head_width, column = place.head * a.head_width + place.dimension;
  const std::int64_t at_query = place.sequence * width + column;
  const T* const kv = static_cast<const T*>(a.kv) + column;
  T* const d_kv = static_cast<T*>(a.d_kv) + column;
  Eights query, gradient;
  load(query, static_cast<const T*>(a.q) + at_query, place.holds);
  load(gradient, static_cast<const T*>(a.d_rows) + at_query, place.holds);
  const auto attended = load(static_cast<const T*>(a.attended) + at_query, place.holds);
  const float delta = sum_of_group<kLanes>(dot(gradient, attended), place.group);
  const float log_sum = place.inside ? kLog2E * a.log_sum_exp[place.unit] : 0.0f;

  Eights d_query = {};
  for (int first = place.first_key; first < keys.count; first += kBatch * place.key_step) {
    Eight<T> key[kBatch], value[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int index = first + i * place.key_step;
      const T* const row = kv + keys.row(index) * 2 * width;
      key[i] = load(row, place.holds && index < keys.count);
      value[i] = load(row + width, place.holds && index < keys.count);
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const int index = first + i * place.key_step;
      const float score = sum_of_group<kLanes>(dot(query, key[i]), place.group);
      const float d_weight = sum_of_group<kLanes>(dot(gradient, value[i]), place.group);
      const float weight = exp2f(score * (scale * kLog2E) - log_sum);
      const float d_score = scale * weight * (d_weight - delta);
      if (index >= keys.count || !place.holds) continue;
      add(d_query, key[i], d_score);
      if (index >= keys.prefix) {
        T* const row = d_kv + keys.row(index) * 2 * width;
        store(row, query, d_score);
        store(row + width, gradient, weight);
      } else if (place.dimension == 0) {
        const std::int64_t all = a.heads * a.prefix * a.sequences;
        float* const to = a.prefix_weights + (place.head * a.prefix + index) * a.sequences + place.sequence;
        to[0] = d_score;
        to[all] = weight;
      }
    }
  }

  if constexpr (kShared) {
    __shared__ float dimensions[kWarps][kMostDimensions];
    sum_of_block<kLanes>(d_query, dimensions);
    if (threadIdx.x >= kLanes) return;
  }
  if (place.holds) store(static_cast<T*>(a.d_q) + at_query, d_query, 1.0f);
}

/// The gradients of the key and value of one row of the prefix and one head: sums over all sequences'
/// queries.
template <typename T, int kLanes>
__global__ void __launch_bounds__(kPrefixThreads) end_prefix_backward(EndAttention a) {
  constexpr int kGroups = kPrefixThreads / kLanes;
  const int row = static_cast<int>(blockIdx.x), head = static_cast<int>(blockIdx.y);
  const int dimension = 8 * static_cast<int>(threadIdx.x % kLanes);
  const bool holds = dimension < a.head_width;
  const std::int64_t width = a.heads * a.head_width, column = head * a.head_width + dimension;
  const float* const d_scores = a.prefix_weights + (head * a.prefix + row) * a.sequences;
  const float* const weights = d_scores + a.heads * a.prefix * a.sequences;
  Eights d_key = {}, d_value = {};
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x) / kLanes; i < a.sequences; i += kGroups) {
    add(d_key, load(static_cast<const T*>(a.q) + i * width + column, holds), d_scores[i]);
    add(d_value, load(static_cast<const T*>(a.d_rows) + i * width + column, holds), weights[i]);
  }
  __shared__ float dimensions[2][kPrefixThreads / 32][kMostDimensions];
  sum_of_block<kLanes>(d_key, dimensions[0]);
  sum_of_block<kLanes>(d_value, dimensions[1]);
  if (threadIdx.x >= kLanes || !holds) return;
  T* const to = static_cast<T*>(a.d_kv) + row * 2 * width + column;
  store(to, d_key, 1.0f);
  store(to + width, d_value, 1.0f);
}

/// Calls run(T{}, lanes) with the C++ type and the size of a group of lanes as a constant.
template <typename Run>
void with_lanes(const EndAttention& a, const Run& run) {
  with_type(a.element, [&](auto type) {
    if (a.head_width <= 32) return run(type, std::integral_constant<int, 4>{});
    if (a.head_width <= 64) return run(type, std::integral_constant<int, 8>{});
    return run(type, std::integral_constant<int, 16>{});
  });
}

/// Whether a block shares a sequence: where one group of lanes would be at it for long.
bool shares_sequences(const EndAttention& a) { return a.prefix + a.longest > 32; }

unsigned blocks_of(const EndAttention& a, int lanes) {
  const std::int64_t units = a.sequences * a.heads, per_block = shares_sequences(a) ? 1 : kThreads / lanes;
  return static_cast<unsigned>((units + per_block - 1) / per_block);
}

float score_scale(const EndAttention& a) { return 1.0f / std::sqrt(static_cast<float>(a.head_width)); }

}  // namespace

bool end_attention_fits(std::int64_t head_width) {
  return head_width % 8 == 0 && head_width <= kMostDimensions;
}

void launch_end_attention(const EndAttention& a, cudaStream_t stream) {
  with_lanes(a, [&](auto type, auto lanes) {
    using T = decltype(type);
    const auto kernel = shares_sequences(a) ? attend_end<T, lanes, true> : attend_end<T, lanes, false>;
    kernel<<<blocks_of(a, lanes), kThreads, 0, stream>>>(a, score_scale(a));
  });
}

void launch_end_attention_backward(const EndAttention& a, cudaStream_t stream) {
  with_lanes(a, [&](auto type, auto lanes) {
    using T = decltype(type);
    const auto kernel =
        shares_sequences(a) ? attend_end_backward<T, lanes, true> : attend_end_backward<T, lanes, false>;
    kernel<<<blocks_of(a, lanes), kThreads, 0, stream>>>(a, score_scale(a));
    if (a.prefix == 0) return;
    const dim3 grid(static_cast<unsigned>(a.prefix), static_cast<unsigned>(a.heads));
    end_prefix_backward<T, lanes><<<grid, kPrefixThreads, 0, stream>>>(a);
  });
}

}  // namespace clip_lora::ops
