#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace clip_lora::ops {

/// What the loss is made of beside features and labels.
struct ClassificationOptions {
  double logit_scale = 100.0;
  std::int64_t prompts_per_class =
      1;  ///< T; a class's features are the normalised mean of its normalised prompts'
  at::Tensor class_weights = {};  ///< [C] float32, or undefined: all alike
  at::Tensor loss_scale = {};     ///< [] or [1] float32 on the device, factor on the gradients; undefined: 1
};

struct ClassificationLoss {
  at::Tensor loss;              ///< [] float32, not scaled
  at::Tensor d_image_features;  ///< [B, E] of the features' type, scaled; undefined unless asked for
  at::Tensor d_text_features;   ///< [C · T, E] likewise
};

/// (Weighted) mean cross-entropy of logit_scale · f̂ t̂ᵀ, f̂ and t̂ the L2-normalised features, with its gradients in
/// the unnormalised ones. image_features: [B, E]; text_features: [C · T, E], those of a class together; labels: [B]
/// int64; inside float32 on CUDA, float64 on a CPU.
ClassificationLoss classification_loss(const at::Tensor& image_features, const at::Tensor& text_features,
                                       const at::Tensor& labels, const ClassificationOptions& options,
                                       bool needs_image_gradient, bool needs_text_gradient);

}  // namespace clip_lora::ops
