#include "clip_lora/engine/optimiser.hpp"

namespace clip_lora::engine {

ops::AdamWOptions adamw_options(const OptimiserOptions& options, std::int64_t total) {
  return {.learning_rate = options.learning_rate,
          .final_learning_rate = options.final_learning_rate,
          .weight_decay = options.weight_decay,
          .beta1 = options.beta1,
          .beta2 = options.beta2,
          .epsilon = options.epsilon,
          .total_iterations = total,
          .warmup_iterations = options.warmup_iterations,
          .largest_gradient_norm = options.largest_gradient_norm,
          .average_decay = options.average_decay};
}

ops::LossScaling loss_scaling_for(at::ScalarType type) {
  return type == at::kHalf ? ops::LossScaling() : ops::kConstantLossScale;
}

double learning_rate_at(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total) {
  return ops::learning_rate_at(adamw_options(options, total), iteration);
}

}  // namespace clip_lora::engine
