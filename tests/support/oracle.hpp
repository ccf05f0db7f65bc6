#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::testing {

// CLIP-LoRA as its definition reads, to judge the product by: float64, one image and one prompt at a time,
// all tokens of a context, attention and its mask written out, B A formed. It shares no code with the product
// and has no dropout.

/// A CLIP and its low-rank updates.
struct OracleModel {
  io::StateDict weights;  ///< OpenAI's names; widths are multiples of 64, the width of a head
  io::StateDict lora;     ///< `visual.transformer.resblocks.0.attn.q_proj.w_lora_A` and so on; may be empty
  double scaling = 0.0;   ///< γ
};

/// images: [B, 3, R, R] of any floating type; returns [B, E] float64, not normalised.
at::Tensor oracle_image_features(const OracleModel& model, const at::Tensor& images);

/// ids: [C, context] zero-padded, the largest id of a row is its end; returns [C, E] float64, not normalised.
at::Tensor oracle_text_features(const OracleModel& model, const at::Tensor& ids);

/// Cosine similarities [B, C] of features [B, E] and [C, E].
at::Tensor oracle_cosine(const at::Tensor& image_features, const at::Tensor& text_features);

struct OracleGradients {
  at::Tensor cosine;        ///< [B, C]
  double loss = 0.0;        ///< (weighted) mean cross-entropy of 100 · cosine
  io::StateDict gradients;  ///< one for each of the model's A's and B's, by its name
};

/// How a loss differs from the mean cross-entropy over classes of one prompt.
struct OracleLoss {
  std::int64_t prompts_per_class = 1;      ///< rows of the ids that belong together
  std::vector<double> class_weights = {};  ///< one per class; empty: all alike
};

/// labels: [B] int64.
OracleGradients oracle_gradients(const OracleModel& model, const at::Tensor& images, const at::Tensor& ids,
                                 const at::Tensor& labels, const OracleLoss& options = {});

/// AdamW and its cosine schedule.
struct OracleOptimiser {
  double learning_rate = 2e-4;
  double final_learning_rate = 1e-6;
  double weight_decay = 1e-2;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
};

/// η_min + (η − η_min)(1 + cos(π t / T)) / 2.
double oracle_learning_rate(const OracleOptimiser& optimiser, std::int64_t iteration, std::int64_t total);

struct OracleTrajectory {
  std::vector<double> losses;          ///< before each update
  std::vector<double> learning_rates;  ///< of each update
  io::StateDict lora;                  ///< after the last update
};

/// One update per row of `images` [T, B, 3, R, R] and `labels` [T, B].
OracleTrajectory oracle_trajectory(const OracleModel& model, const at::Tensor& images, const at::Tensor& ids,
                                   const at::Tensor& labels, const OracleOptimiser& optimiser);

}  // namespace clip_lora::testing
