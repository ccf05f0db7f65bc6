#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

#include "clip_lora/ops/adamw.hpp"

namespace clip_lora::engine {

/// AdamW with cosine annealing per iteration, after a linear warm-up. The defaults are CLIP-LoRA's.
struct OptimiserOptions {
  double learning_rate = 2e-4;
  double final_learning_rate = 1e-6;  ///< eta_min, reached after the last iteration
  double weight_decay = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  std::int64_t warmup_iterations = 0;
  double largest_gradient_norm = 0.0;  ///< gradients above are shortened to it; 0: none is
  double average_decay =
      0.0;  ///< of the exponential moving average that the adapter ends as, [0, 1); 0: none
};

/// The options in the words of the op.
ops::AdamWOptions adamw_options(const OptimiserOptions& options, std::int64_t total);

/// Of a model of `type`: dynamic in float16, a constant 1 in any other, so that gradients that are not finite make no
/// update there either.
ops::LossScaling loss_scaling_for(at::ScalarType type);

/// The learning rate of iteration `iteration` (from 0) of `total`: without a warm-up PyTorch's
/// CosineAnnealingLR(T_max = total).
double learning_rate_at(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total);

}  // namespace clip_lora::engine
