#pragma once

#include <torch/torch.h>

#include <cmath>
#include <numbers>

#include "clip_lora/ops/adamw.hpp"

namespace clip_lora::testing {

/// torch.optim.AdamW(fused=True) with CosineAnnealingLR's closed form, after torch.nn.utils.clip_grad_norm_
/// if gradients have a largest norm, and torch.amp.GradScaler: the calls of LibTorch that those make, for one
/// flat parameter and its exponential moving average. Without a warm-up.
class AmpAdamW {
 public:
  AmpAdamW(const at::Tensor& initial, const ops::AdamWOptions& options, const ops::LossScaling& scaling,
           double initial_scale)
      : parameters(initial.clone()),
        averages(initial.clone()),
        first_moments(at::zeros_like(initial)),
        second_moments(at::zeros_like(initial)),
        updates(at::zeros({}, initial.options())),
        scale(at::full({1}, initial_scale, initial.options())),
        growth_tracker(at::zeros({1}, initial.options().dtype(at::kInt))),
        options_(options),
        scaling_(scaling) {}

  void step(const at::Tensor& gradients) {
    at::Tensor found_inf = at::zeros({1}, parameters.options());
    at::_amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, scale.reciprocal());
    updates.add_(1.0 - found_inf.squeeze());
    if (options_.largest_gradient_norm > 0.0) clip(gradients);
    at::_fused_adamw_(parameters, gradients, first_moments, second_moments, {}, updates, learning_rate(),
                      options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon, false, false,
                      {}, found_inf);
    if (found_inf.item<float>() == 0.0F)
      averages = options_.average_decay * averages + (1.0 - options_.average_decay) * parameters;
    at::_amp_update_scale_(scale, growth_tracker, found_inf, scaling_.growth_factor, scaling_.backoff_factor,
                           scaling_.growth_interval);
    ++iterations;
  }

  at::Tensor parameters, averages, first_moments, second_moments, updates, scale, growth_tracker;
  std::int64_t iterations = 0;

 private:
  void clip(const at::Tensor& gradients) const {
    at::Tensor parameter = at::empty_like(parameters);
    parameter.mutable_grad() = gradients;
    torch::nn::utils::clip_grad_norm_(parameter, options_.largest_gradient_norm);
  }

  double learning_rate() const {
    const double progress = static_cast<double>(iterations) / static_cast<double>(options_.total_iterations);
    const double range = options_.learning_rate - options_.final_learning_rate;
    return options_.final_learning_rate + range * (1.0 + std::cos(std::numbers::pi * progress)) / 2.0;
  }

  ops::AdamWOptions options_;
  ops::LossScaling scaling_;
};

/// The state of a fresh run.
inline ops::AdamWState fresh_adamw_state(const at::Tensor& parameters, double scale) {
  const at::Tensor counters = at::zeros({4}, parameters.options().dtype(at::kDouble));
  counters[2] = scale;
  return {parameters.clone(), at::empty_like(parameters), at::zeros_like(parameters),
          at::zeros_like(parameters), counters};
}

}  // namespace clip_lora::testing
