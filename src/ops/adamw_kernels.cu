#include <algorithm>

#include "adamw_kernels.hpp"
#include "element.cuh"

namespace clip_lora::ops {
namespace {

constexpr int kThreads = 256;
constexpr int kUpdateBlocks = 2048;
constexpr int kUpColumnsPerThread = 4;

/// What an update multiplies by. Computed in float64, as PyTorch does.
struct alignas(16) Factors {
  float unscale;             // 1 / loss scale
  float decay;               // 1 − η λ
  float step_size;           // η / (1 − β₁ᵗ)
  float root_of_correction;  // √(1 − β₂ᵗ)
};

struct Scratch {
  Factors factors;
  int found_inf[kAdamWCheckBlocks];  // by block of prepare_kernel
};
static_assert(sizeof(Scratch) == kAdamWScratchBytes);

__device__ Factors factors_of(const AdamWConstants& k, const double* counters) {
  const double iteration = counters[0], update = counters[1] + 1.0;
  const double amplitude = 0.5 * (k.learning_rate - k.final_learning_rate);
  const double rate = k.final_learning_rate + amplitude * (1.0 + cospi(iteration / k.total_iterations));
  return {k.scaled ? 1.0F / static_cast<float>(counters[2]) : 1.0F,
          static_cast<float>(1.0 - rate * k.weight_decay),
          static_cast<float>(rate / (1.0 - pow(k.beta1, update))),
          static_cast<float>(sqrt(1.0 - pow(k.beta2, update)))};
}

/// Each block says whether its gradients hold an infinity or a NaN; the first also works out the update's
/// factors.
__global__ void __launch_bounds__(kThreads) prepare_kernel(AdamWBuffers b, AdamWConstants k) {
  Scratch& scratch = *static_cast<Scratch*>(b.scratch);
  if (blockIdx.x == 0 && threadIdx.x == kThreads - 1) scratch.factors = factors_of(k, b.counters);
  bool found = false;
  if (k.scaled) {
    const auto* fours = reinterpret_cast<const float4*>(b.gradients);
    for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < b.count / 4; i += gridDim.x * kThreads) {
      const float4 g = fours[i];
      found |= !(isfinite(g.x) && isfinite(g.y) && isfinite(g.z) && isfinite(g.w));
    }
    if (blockIdx.x == 0 && threadIdx.x < b.count % 4)
      found |= !isfinite(b.gradients[b.count - 1 - threadIdx.x]);
  }
  const int any = __syncthreads_or(found);
  if (threadIdx.x == 0) scratch.found_inf[blockIdx.x] = any;
}

/// The counters after an iteration, as torch.amp.GradScaler and CosineAnnealingLR count.
__device__ void count_iteration(double* counters, const AdamWConstants& k, bool found_inf) {
  counters[0] += 1.0;
  if (found_inf) {
    counters[2] *= k.backoff_factor;
    counters[3] = 0.0;
    return;
  }
  counters[1] += 1.0;
  if (!k.scaled) return;
  counters[3] += 1.0;
  if (counters[3] < k.growth_interval) return;
  counters[3] = 0.0;
  if (isfinite(static_cast<float>(counters[2] * k.growth_factor))) counters[2] *= k.growth_factor;
}

struct Coefficients {
  Factors factors;
  float one_minus_beta1, beta2, one_minus_beta2, epsilon;
};

__device__ __forceinline__ void update(float& parameter, float gradient, float& m, float& v,
                                       const Coefficients& c) {
  const float g = gradient * c.factors.unscale;
  m = fmaf(c.one_minus_beta1, g - m, m);
  v = v * c.beta2 + c.one_minus_beta2 * g * g;
  const float denominator = sqrtf(v) / c.factors.root_of_correction + c.epsilon;
  parameter = parameter * c.factors.decay - c.factors.step_size * m / denominator;
}

__global__ void __launch_bounds__(kThreads)
    update_kernel(AdamWBuffers b, AdamWConstants k, int check_blocks) {
  const Scratch& scratch = *static_cast<const Scratch*>(b.scratch);
  static_assert(kAdamWCheckBlocks <= kThreads);
  const bool own = static_cast<int>(threadIdx.x) < check_blocks && scratch.found_inf[threadIdx.x] != 0;
  const bool found_inf = __syncthreads_or(own) != 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) count_iteration(b.counters, k, found_inf);
  if (found_inf) return;
  const Coefficients c = {scratch.factors, static_cast<float>(1.0 - k.beta1), static_cast<float>(k.beta2),
                          static_cast<float>(1.0 - k.beta2), static_cast<float>(k.epsilon)};
  auto* parameters = reinterpret_cast<float4*>(b.parameters);
  auto* first = reinterpret_cast<float4*>(b.first_moments);
  auto* second = reinterpret_cast<float4*>(b.second_moments);
  const auto* gradients = reinterpret_cast<const float4*>(b.gradients);
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < b.count / 4; i += gridDim.x * kThreads) {
    float4 p = parameters[i], m = first[i], v = second[i];
    const float4 g = gradients[i];
    update(p.x, g.x, m.x, v.x, c);
    update(p.y, g.y, m.y, v.y, c);
    update(p.z, g.z, m.z, v.z, c);
    update(p.w, g.w, m.w, v.w, c);
    parameters[i] = p;
    first[i] = m;
    second[i] = v;
  }
  if (blockIdx.x == 0 && threadIdx.x < b.count % 4) {
    const std::int64_t i = b.count - 1 - threadIdx.x;
    update(b.parameters[i], b.gradients[i], b.first_moments[i], b.second_moments[i], c);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    up_columns_kernel(const float* __restrict__ parameters, const UpColumnsEntry* __restrict__ table) {
  const UpColumnsEntry entry = table[blockIdx.y];
#pragma unroll
  for (int k = 0; k < kUpColumnsPerThread; ++k) {
    const int i = static_cast<int>((blockIdx.x * kUpColumnsPerThread + k) * kThreads + threadIdx.x);
    if (i >= entry.rows * entry.rank) return;
    const int row = i / entry.rank, column = i - row * entry.rank;
    const std::int64_t at = row * entry.row_stride + column * entry.column_stride;
    static_cast<T*>(entry.columns)[at] = from_float<T>(entry.scaling * parameters[entry.offset + i]);
  }
}

/// Blocks for `count` values, four to a thread, `most` at the most.
int blocks_for(std::int64_t count, int most) {
  const std::int64_t wanted = (count / 4 + kThreads - 1) / kThreads;
  return static_cast<int>(std::clamp<std::int64_t>(wanted, 1, most));
}

}  // namespace

void launch_adamw(const AdamWBuffers& buffers, const AdamWConstants& constants, cudaStream_t stream) {
  const int check_blocks = constants.scaled ? blocks_for(buffers.count, kAdamWCheckBlocks) : 1;
  prepare_kernel<<<check_blocks, kThreads, 0, stream>>>(buffers, constants);
  const int update_blocks = blocks_for(buffers.count, kUpdateBlocks);
  update_kernel<<<update_blocks, kThreads, 0, stream>>>(buffers, constants, check_blocks);
}

void launch_up_columns(const float* parameters, const UpColumnsEntry* table, int entries,
                       std::int64_t largest, Element element, cudaStream_t stream) {
  constexpr std::int64_t kPerBlock = kThreads * kUpColumnsPerThread;
  const dim3 grid(static_cast<unsigned>((largest + kPerBlock - 1) / kPerBlock),
                  static_cast<unsigned>(entries));
  with_type(element, [&](auto type) {
    using T = decltype(type);
    up_columns_kernel<T><<<grid, kThreads, 0, stream>>>(parameters, table);
  });
}

}  // namespace clip_lora::ops
