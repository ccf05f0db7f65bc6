#pragma once

#include <cstdint>
#include <optional>

#include "clip_lora/engine/optimiser.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::engine {

/// The factor on cosine similarities in training and evaluation; the reference's, whatever the checkpoint's
/// is.
inline constexpr double kLogitScale = 100.0;

/// 100 · f·tᵀ of L2-normalised features. image_features: [B, E], text_features: [C, E]; returns [B, C]
/// float32.
at::Tensor classification_logits(const at::Tensor& image_features, const at::Tensor& text_features);

/// L2-normalised features of any number of prompts on any device, without gradients: [N, E] float32 on the
/// model's device. They are encoded in chunks, so that memory does not grow with their number.
at::Tensor prompt_features(model::Clip& clip, const model::Prompts& prompts);

/// What a training step is told beside model, adapter and prompts.
struct TrainingStepOptions {
  OptimiserOptions optimiser = {};
  std::int64_t total_iterations = 1;  ///< of the learning rate's schedule
  std::int64_t prompts_per_class =
      1;  ///< T; a class's features are the normalised mean of its prompts' normalised ones
  at::Tensor class_weights =
      {};  ///< [C] float32 on the model's device, of the cross-entropy; undefined: all alike
};

/// One iteration of CLIP-LoRA: encode all prompts and the batch's images, cross-entropy, gradients of A's and
/// B's, AdamW.
class TrainingStep {
 public:
  /// Attaches `adapter` to `clip` and puts it into training mode for as long as the step lives. `prompts` on
  /// the model's device, those of a class together. Losses are scaled where the model computes in float16.
  TrainingStep(model::Clip clip, lora::Adapter adapter, model::Prompts prompts,
               const TrainingStepOptions& options);
  ~TrainingStep();
  TrainingStep(const TrainingStep&) = delete;
  TrainingStep& operator=(const TrainingStep&) = delete;

  /// images: [B, 3, R, R] of the model's device and type; labels: [B] int64 on its device. Returns the
  /// batch's mean loss before the update, [] float32 on the device, without waiting for it.
  at::Tensor run(const at::Tensor& images, const at::Tensor& labels);

  /// Forward and backward only: leaves the gradients (unscaled unless float16) in the adapter's parameters.
  at::Tensor compute_gradients(const at::Tensor& images, const at::Tensor& labels);

  std::int64_t iteration() const { return iteration_; }
  double learning_rate() const;  ///< of the next iteration

 private:
  at::Tensor encode_classes();  ///< [C, E]
  at::Tensor encode_images(const at::Tensor& images);

  model::Clip clip_;
  lora::Adapter adapter_;
  model::Prompts prompts_;
  TrainingStepOptions options_;
  std::int64_t iteration_ = 0;
  AdamW optimiser_;
  std::optional<LossScaler> scaler_;
  at::Tensor frozen_text_features_;  // [C, E], with --encoder vision only
};

}  // namespace clip_lora::engine
