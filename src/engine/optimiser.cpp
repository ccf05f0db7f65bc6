#include "clip_lora/engine/optimiser.hpp"

#include <cmath>
#include <numbers>

namespace clip_lora::engine {

double cosine_learning_rate(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total) {
  const double progress = static_cast<double>(iteration) / static_cast<double>(total);
  const double amplitude = 0.5 * (options.learning_rate - options.final_learning_rate);
  return options.final_learning_rate + amplitude * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace clip_lora::engine
