#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "clip_lora/core/share.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/ops/contrastive.hpp"

namespace clip_lora::engine {

/// What `processes` leave of a batch to this one; null: all.
Share own_share(std::int64_t batch, const ProcessGroup* processes);

/// The options for a share of the batches.
TrainingStepOptions for_share(TrainingStepOptions options);

/// What a loss is computed from.
struct LossInputs {
  at::Tensor image_features;  ///< [S, E] float32 of this process's share of a batch
  at::Tensor text_features;   ///< likewise; of cross-entropy [C · T, E], the same in every process
  at::Tensor labels;          ///< [B] int64 of the whole batch
  Share own;                  ///< which S of the B: all without options.processes
  at::Tensor loss_scale;      ///< [1] float32, or undefined: 1
};

/// The loss of a whole batch, with the gradients in this process's features. What processes add to the
/// gradients of what they train sums up to the whole batch's. With options.processes all of them call it for
/// the same batch.
ops::ContrastiveLoss batch_loss(const TrainingStepOptions& options, const LossInputs& inputs,
                                bool needs_image_gradient, bool needs_text_gradient);

}  // namespace clip_lora::engine
