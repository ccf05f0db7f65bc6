#include "clip_lora/engine/optimiser.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <numbers>
#include <utility>

namespace clip_lora::engine {
namespace {

constexpr double kInitialScale = 1024.0;
constexpr double kGrowthFactor = 2.0;
constexpr double kBackoffFactor = 0.5;
constexpr std::int64_t kGrowthInterval = 2000;

}  // namespace

double cosine_learning_rate(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total) {
  const double progress = static_cast<double>(iteration) / static_cast<double>(total);
  const double amplitude = 0.5 * (options.learning_rate - options.final_learning_rate);
  return options.final_learning_rate + amplitude * (1.0 + std::cos(std::numbers::pi * progress));
}

AdamW::AdamW(std::vector<at::Tensor> parameters, const OptimiserOptions& options)
    : options_(options), parameters_(std::move(parameters)) {
  for (const auto& parameter : parameters_) {
    first_moments_.push_back(at::zeros_like(parameter));
    second_moments_.push_back(at::zeros_like(parameter));
    steps_.push_back(at::zeros({}, parameter.options().requires_grad(false)));
  }
}

void AdamW::step(double learning_rate, const at::Tensor& found_inf) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters_) gradients.push_back(parameter.grad());
  at::_foreach_add_(steps_, 1.0);
  at::_fused_adamw_(parameters_, gradients, first_moments_, second_moments_, /*max_exp_avg_sqs=*/{}, steps_,
                    learning_rate, options_.beta1, options_.beta2, options_.weight_decay, options_.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{},
                    found_inf.defined() ? std::optional(found_inf) : std::nullopt);
  if (found_inf.defined()) at::_foreach_sub_(steps_, std::vector(steps_.size(), found_inf.squeeze()));
}

void AdamW::zero_gradients() {
  for (auto& parameter : parameters_) parameter.mutable_grad().reset();
}

LossScaler::LossScaler(at::Device device)
    : scale_(at::full({1}, kInitialScale, at::TensorOptions(device).dtype(at::kFloat))),
      growth_tracker_(at::zeros({1}, at::TensorOptions(device).dtype(at::kInt))) {}

at::Tensor LossScaler::scale(const at::Tensor& loss) const { return loss * scale_.squeeze(); }

at::Tensor LossScaler::unscale(const std::vector<at::Tensor>& gradients) const {
  const at::NoGradGuard no_grad;
  at::Tensor found_inf = at::zeros_like(scale_);
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, found_inf, scale_.reciprocal());
  return found_inf;
}

void LossScaler::update(const at::Tensor& found_inf) {
  at::_amp_update_scale_(scale_, growth_tracker_, found_inf, kGrowthFactor, kBackoffFactor, kGrowthInterval);
}

double LossScaler::current_scale() const { return scale_.item<double>(); }

}  // namespace clip_lora::engine
