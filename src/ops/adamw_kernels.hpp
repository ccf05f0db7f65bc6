#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// AdamWOptions and LossScaling as the kernels take them.
struct AdamWConstants {
  double learning_rate = 0.0;
  double final_learning_rate = 0.0;
  double weight_decay = 0.0;
  double beta1 = 0.0;
  double beta2 = 0.0;
  double epsilon = 0.0;
  double warmup_iterations = 0.0;
  double annealed_iterations = 1.0;    ///< those after the warm-up
  double largest_gradient_norm = 0.0;  ///< 0: gradients are not shortened
  double average_weight = 1.0;         ///< what of a parameter goes into its average
  double growth_factor = 2.0;
  double backoff_factor = 0.5;
  double growth_interval = 2000.0;
};

/// `count` values each, addresses multiples of 16 bytes.
struct AdamWBuffers {
  float* parameters = nullptr;
  const float* gradients = nullptr;
  float* first_moments = nullptr;
  float* second_moments = nullptr;
  float* averages = nullptr;   ///< none are kept without
  double* counters = nullptr;  ///< [4], see AdamWState
  void* scratch = nullptr;     ///< kAdamWScratchBytes
  std::int64_t count = 0;
};

constexpr int kAdamWCheckBlocks = 256;
constexpr int kAdamWScratchBytes = 16 + 12 * kAdamWCheckBlocks;

void launch_adamw(const AdamWBuffers& buffers, const AdamWConstants& constants, cudaStream_t stream);

/// One B and where scaling · B goes. Strides in elements.
struct UpColumnsEntry {
  std::int64_t offset = 0;  ///< of B in the flat parameters
  void* columns = nullptr;
  std::int64_t row_stride = 0;
  std::int64_t column_stride = 0;
  std::int32_t rows = 0;
  std::int32_t rank = 0;
  float scaling = 1.0F;
};

/// `table`: [entries] on the device. `largest`: the most elements of a B.
void launch_up_columns(const float* parameters, const UpColumnsEntry* table, int entries,
                       std::int64_t largest, Element element, cudaStream_t stream);

}  // namespace clip_lora::ops
