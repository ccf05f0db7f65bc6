#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// What the contrastive loss is made of beside features and labels.
struct ContrastiveOptions {
  double logit_scale = 100.0;  ///< factor on cosines
  double margin = 0.0;  ///< added to the cosines of pairs that are no positives of each other, at least 0
  double label_smoothing = 0.0;  ///< ε, [0, 1): what the targets give to the pairs that are no positives
  at::Tensor loss_scale = {};    ///< [] or [1] float32 on the device, factor on the gradients; undefined: 1
};

struct ContrastiveLoss {
  at::Tensor loss;              ///< [] float32, not scaled
  at::Tensor d_image_features;  ///< [B, E] of the features' type, scaled; undefined unless asked for
  at::Tensor d_text_features;   ///< [B, E] likewise
};

/// Multi-positive margin NCE of B image–text pairs (R-Adapter, Kim et al. 2024, eq. 8) with its gradients in
/// the unnormalised features. image_features, text_features: [B, E]; labels: [B] int64, pairs of one label
/// are positives of each other; undefined: CLIP's loss, each pair its own class, smoothed over all B pairs
/// and without the margin. Inside float32 on CUDA, float64 on a CPU; nothing waits for the device.
ContrastiveLoss contrastive_loss(const at::Tensor& image_features, const at::Tensor& text_features,
                                 const at::Tensor& labels, const ContrastiveOptions& options,
                                 bool needs_image_gradient, bool needs_text_gradient);

}  // namespace clip_lora::ops
