#pragma once

#include <cstdint>

namespace clip_lora::engine {

/// AdamW with cosine annealing per iteration. The defaults are the paper's.
struct OptimiserOptions {
  double learning_rate = 2e-4;
  double final_learning_rate = 1e-6;  ///< eta_min, reached after the last iteration
  double weight_decay = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

/// The learning rate of iteration `iteration` (from 0) of `total`: PyTorch's CosineAnnealingLR(T_max =
/// total).
double cosine_learning_rate(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total);

}  // namespace clip_lora::engine
