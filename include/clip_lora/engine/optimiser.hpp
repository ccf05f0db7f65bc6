#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

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

/// The learning rate of iteration `iteration` (from 0) of `total`: PyTorch's CosineAnnealingLR(T_max = total).
double cosine_learning_rate(const OptimiserOptions& options, std::int64_t iteration, std::int64_t total);

/// AdamW (Loshchilov & Hutter 2019) through LibTorch's fused update: a few launches for all parameters, and nothing waits
/// for the device.
class AdamW {
 public:
  /// `parameters`: float32 leaves with gradients, all on one device.
  AdamW(std::vector<at::Tensor> parameters, const OptimiserOptions& options);

  /// One update from the parameters' .grad. `found_inf`: [1] float32 on the device, or undefined; where it is not 0 the
  /// update is skipped and does not count as a step.
  void step(double learning_rate, const at::Tensor& found_inf = {});
  void zero_gradients();

  const std::vector<at::Tensor>& parameters() const { return parameters_; }

 private:
  OptimiserOptions options_;
  std::vector<at::Tensor> parameters_;
  std::vector<at::Tensor> first_moments_;
  std::vector<at::Tensor> second_moments_;
  std::vector<at::Tensor> steps_;
};

/// Dynamic loss scaling (Micikevicius et al. 2018): halved at an overflow, doubled after 2,000 iterations without, as
/// torch.amp.GradScaler. It starts at 1,024 instead of 65,536, because the factor 100 on cosines would overflow float16
/// in the first iterations, which would then be skipped. Nothing waits for the device.
class LossScaler {
 public:
  explicit LossScaler(at::Device device);

  at::Tensor scale(const at::Tensor& loss) const;  ///< loss · scale
  /// Divides the gradients by the scale in place. Returns found_inf: [1] float32, 1 if any entry is not finite.
  at::Tensor unscale(const std::vector<at::Tensor>& gradients) const;
  /// Adapts the scale to what unscale found.
  void update(const at::Tensor& found_inf);

  double current_scale() const;  ///< waits for the device

 private:
  at::Tensor scale_;           // [1] float32
  at::Tensor growth_tracker_;  // [1] int32
};

}  // namespace clip_lora::engine
