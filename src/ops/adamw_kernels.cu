#include <algorithm>

#include "adamw_kernels.hpp"
#include "block_sum.cuh"
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
  int found_inf[kAdamWCheckBlocks];   // by block of prepare_kernel
  double squares[kAdamWCheckBlocks];  // of the gradients, likewise; only where they may be shortened
};
static_assert(sizeof(Scratch) == kAdamWScratchBytes);

__device__ double rate_of(const AdamWConstants& k, double iteration) {
  if (iteration < k.warmup_iterations) return k.learning_rate * (iteration + 1.0) / k.warmup_iterations;
  const double progress = (iteration - k.warmup_iterations) / k.annealed_iterations;
  const double amplitude = 0.5 * (k.learning_rate - k.final_learning_rate);
  return k.final_learning_rate + amplitude * (1.0 + cospi(progress));
}

__device__ float unscale_of(const double* counters) { return 1.0F / static_cast<float>(counters[2]); }

__device__ bool shortens(const AdamWConstants& k) { return k.largest_gradient_norm > 0.0; }

__device__ Factors factors_of(const AdamWConstants& k, const double* counters) {
  const double rate = rate_of(k, counters[0]), update = counters[1] + 1.0;
  return {unscale_of(counters), static_cast<float>(1.0 - rate * k.weight_decay),
          static_cast<float>(rate / (1.0 - pow(k.beta1, update))),
          static_cast<float>(sqrt(1.0 - pow(k.beta2, update)))};
}

/// Each block says whether its gradients hold an infinity or a NaN and how long they are; the first also
/// works out the update's factors.
__global__ void __launch_bounds__(kThreads) prepare_kernel(AdamWBuffers b, AdamWConstants k) {
  Scratch& scratch = *static_cast<Scratch*>(b.scratch);
  if (blockIdx.x == 0 && threadIdx.x == kThreads - 1) scratch.factors = factors_of(k, b.counters);
  bool found = false;
  float squares = 0.0F;
  const float unscale = unscale_of(b.counters);
  const auto look_at = [&](float gradient) {
    const float g = gradient * unscale;
    found |= !isfinite(gradient);
    squares = fmaf(g, g, squares);
  };
  const auto* fours = reinterpret_cast<const float4*>(b.gradients);
  for (std::int64_t i = blockIdx.x * kThreads + threadIdx.x; i < b.count / 4; i += gridDim.x * kThreads) {
    const float4 g = fours[i];
    look_at(g.x);
    look_at(g.y);
    look_at(g.z);
    look_at(g.w);
  }
  if (blockIdx.x == 0 && threadIdx.x < b.count % 4) look_at(b.gradients[b.count - 1 - threadIdx.x]);
  const int any = __syncthreads_or(found);
  if (threadIdx.x == 0) scratch.found_inf[blockIdx.x] = any;
  if (!shortens(k)) return;
  const double sum = sum_of_block<kThreads, double>(squares);
  if (threadIdx.x == 0) scratch.squares[blockIdx.x] = sum;
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
  counters[3] += 1.0;
  if (counters[3] < k.growth_interval) return;
  counters[3] = 0.0;
  if (isfinite(static_cast<float>(counters[2] * k.growth_factor))) counters[2] *= k.growth_factor;
}

/// What gradients are multiplied by so that they are not longer than the largest norm, as clip_grad_norm_ has
/// it. For all threads of a block.
__device__ float shortening_of(const Scratch& scratch, const AdamWConstants& k, int check_blocks) {
  const bool own = static_cast<int>(threadIdx.x) < check_blocks;
  const double norm = sqrt(sum_of_block<kThreads>(own ? scratch.squares[threadIdx.x] : 0.0));
  const double factor = k.largest_gradient_norm / (norm + 1e-6);
  return factor < 1.0 ? static_cast<float>(factor) : 1.0F;
}

struct Coefficients {
  Factors factors;
  float one_minus_beta1, beta2, one_minus_beta2, epsilon, average_weight;
};

__device__ __forceinline__ void update(float& parameter, float gradient, float& m, float& v,
                                       const Coefficients& c) {
  const float g = gradient * c.factors.unscale;
  m = fmaf(c.one_minus_beta1, g - m, m);
  v = v * c.beta2 + c.one_minus_beta2 * g * g;
  const float denominator = sqrtf(v) / c.factors.root_of_correction + c.epsilon;
  parameter = parameter * c.factors.decay - c.factors.step_size * m / denominator;
}

/// As ATen's lerp: nothing changes where both agree.
__device__ __forceinline__ void average(float& mean, float parameter, float weight) {
  const float difference = parameter - mean;
  mean = weight < 0.5F ? mean + weight * difference : parameter - difference * (1.0F - weight);
}

__global__ void __launch_bounds__(kThreads)
    update_kernel(AdamWBuffers b, AdamWConstants k, int check_blocks) {
  const Scratch& scratch = *static_cast<const Scratch*>(b.scratch);
  static_assert(kAdamWCheckBlocks <= kThreads);
  const bool own = static_cast<int>(threadIdx.x) < check_blocks && scratch.found_inf[threadIdx.x] != 0;
  const bool found_inf = __syncthreads_or(own) != 0;
  if (blockIdx.x == 0 && threadIdx.x == 0) count_iteration(b.counters, k, found_inf);
  if (found_inf) return;
  Coefficients c = {scratch.factors,
                    static_cast<float>(1.0 - k.beta1),
                    static_cast<float>(k.beta2),
                    static_cast<float>(1.0 - k.beta2),
                    static_cast<float>(k.epsilon),
                    static_cast<float>(k.average_weight)};
  if (shortens(k)) c.factors.unscale *= shortening_of(scratch, k, check_blocks);
  auto* parameters = reinterpret_cast<float4*>(b.parameters);
  auto* first = reinterpret_cast<float4*>(b.first_moments);
  auto* second = reinterpret_cast<float4*>(b.second_moments);
  auto* averages = reinterpret_cast<float4*>(b.averages);
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
    if (averages == nullptr) continue;
    float4 mean = averages[i];
    average(mean.x, p.x, c.average_weight);
    average(mean.y, p.y, c.average_weight);
    average(mean.z, p.z, c.average_weight);
    average(mean.w, p.w, c.average_weight);
    averages[i] = mean;
  }
  if (blockIdx.x == 0 && threadIdx.x < b.count % 4) {
    const std::int64_t i = b.count - 1 - threadIdx.x;
    update(b.parameters[i], b.gradients[i], b.first_moments[i], b.second_moments[i], c);
    if (b.averages != nullptr) average(b.averages[i], b.parameters[i], c.average_weight);
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
  const int check_blocks = blocks_for(buffers.count, kAdamWCheckBlocks);
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
