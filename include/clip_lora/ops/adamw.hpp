#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace clip_lora::ops {

/// AdamW (Loshchilov & Hutter 2019) with cosine annealing, in the words of PyTorch's AdamW and
/// CosineAnnealingLR, after a linear warm-up.
struct AdamWOptions {
  double learning_rate = 2e-4;
  double final_learning_rate = 1e-6;  ///< eta_min
  double weight_decay = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  std::int64_t total_iterations = 1;  ///< T_max, the warm-up included
  std::int64_t warmup_iterations =
      0;  ///< iteration t of them has the rate learning_rate · (t + 1) / warmup_iterations
  double largest_gradient_norm =
      0.0;                     ///< gradients above are shortened to it, as clip_grad_norm_; 0: none is
  double average_decay = 0.0;  ///< m of the averages, [0, 1)
};

/// The learning rate of iteration `iteration`, from 0.
double learning_rate_at(const AdamWOptions& options, std::int64_t iteration);

/// All parameters and what belongs to them, each one flat buffer [n] float32 on one device.
struct AdamWState {
  at::Tensor parameters;
  at::Tensor gradients;
  at::Tensor first_moments;
  at::Tensor second_moments;
  /// [4] float64 on the device: iterations begun (the schedule's t), updates made (AdamW's step count,
  /// skipped ones not counted), loss scale, iterations since the scale last changed.
  at::Tensor counters;
  /// Exponential moving averages of the parameters, m · average + (1 − m) · parameter after each update;
  /// undefined: none are kept.
  at::Tensor averages = {};
};

/// Dynamic loss scaling (Micikevicius et al. 2018) as torch.amp.GradScaler: halved when a gradient is not
/// finite (the update is skipped then, the schedule goes on), doubled after `growth_interval` updates in a
/// row.
struct LossScaling {
  double growth_factor = 2.0;
  double backoff_factor = 0.5;
  std::int64_t growth_interval = 2000;
};

/// The scale stays as it is; updates with gradients that are not finite are skipped all the same.
inline constexpr LossScaling kConstantLossScale = {.growth_factor = 1.0, .backoff_factor = 1.0};

/// One update out of the gradients, which are divided by the loss scale first. Everything happens on the
/// device: nothing waits, so that it can be captured in a CUDA graph. Also counts the iteration.
void adamw_step(const AdamWState& state, const AdamWOptions& options, const LossScaling& scaling);

/// One B [D, R] at `offset` of the flat parameters, and where γB goes: `columns` [D, R], a strided view.
struct UpColumns {
  std::int64_t offset = 0;
  double scaling = 1.0;
  at::Tensor columns;
};

/// Where all γB go, prepared once, since a launch per B would cost more than the work.
class UpColumnsWriter {
 public:
  UpColumnsWriter() = default;
  /// All columns on the parameters' device and of one floating type.
  explicit UpColumnsWriter(std::vector<UpColumns> columns);
  /// Writes scaling · B of the flat `parameters` [n] float32 into every `columns`.
  void write(const at::Tensor& parameters) const;

 private:
  std::vector<UpColumns> columns_;
  at::Tensor table_;  ///< on CUDA: the descriptors, as bytes
};

}  // namespace clip_lora::ops
