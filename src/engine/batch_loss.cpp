#include "batch_loss.hpp"

#include <ATen/ATen.h>

#include <vector>

#include "clip_lora/engine/process_group.hpp"
#include "clip_lora/ops/classification.hpp"

namespace clip_lora::engine {
namespace {

/// Rows [B, E] of all processes, of which each gives its share.
at::Tensor gathered(ProcessGroup& processes, const at::Tensor& own, std::int64_t batch) {
  const std::int64_t room = largest_share(batch, processes.size());
  const at::Tensor padded = at::constant_pad_nd(own, {0, 0, 0, room - own.size(0)});
  const at::Tensor all = processes.all_gather(padded);
  std::vector<at::Tensor> shares;
  for (int rank = 0; rank < processes.size(); ++rank) {
    shares.push_back(all.narrow(0, rank * room, share_of(batch, rank, processes.size()).count));
  }
  return at::cat(shares);
}

/// Each pair is held against those of all processes.
ops::ContrastiveLoss contrastive(const TrainingStepOptions& options, const LossInputs& inputs,
                                 bool needs_image_gradient, bool needs_text_gradient) {
  const ops::ContrastiveOptions contrastive = {.logit_scale = options.logit_scale,
                                               .margin = options.margin,
                                               .label_smoothing = options.label_smoothing,
                                               .loss_scale = inputs.loss_scale};
  if (options.processes == nullptr) {
    return ops::contrastive_loss(inputs.image_features, inputs.text_features, inputs.labels, contrastive,
                                 needs_image_gradient, needs_text_gradient);
  }
  const at::Tensor pairs =
      gathered(*options.processes, at::cat({inputs.image_features, inputs.text_features}, 1),
               inputs.labels.size(0));  // [B, 2E]
  const std::vector<at::Tensor> features = pairs.chunk(2, 1);
  ops::ContrastiveLoss loss =
      ops::contrastive_loss(features[0].contiguous(), features[1].contiguous(), inputs.labels, contrastive,
                            needs_image_gradient, needs_text_gradient);
  const auto keep_own = [&](at::Tensor& gradient) {
    if (gradient.defined()) gradient = gradient.narrow(0, inputs.own.first, inputs.own.count);
  };
  keep_own(loss.d_image_features);
  keep_own(loss.d_text_features);
  return loss;
}

/// What a share of a batch weighs in its mean, [1] float32.
at::Tensor weight_of(const Share& own, const at::Tensor& labels, const at::Tensor& class_weights) {
  if (!class_weights.defined()) {
    const double weight = static_cast<double>(own.count) / static_cast<double>(labels.size(0));
    return at::full({1}, weight, labels.options().dtype(at::kFloat));
  }
  const at::Tensor weights = class_weights.index_select(0, labels);
  return (weights.narrow(0, own.first, own.count).sum() / weights.sum()).view({1});
}

/// The mean over the whole batch is that of the processes' means.
ops::ContrastiveLoss classification(const TrainingStepOptions& options, const LossInputs& inputs,
                                    bool needs_image_gradient, bool needs_text_gradient) {
  ops::ClassificationOptions classification = {.logit_scale = options.logit_scale,
                                               .prompts_per_class = options.prompts_per_class,
                                               .class_weights = options.class_weights,
                                               .loss_scale = inputs.loss_scale};
  const auto loss_of = [&](const at::Tensor& labels) -> ops::ContrastiveLoss {
    const auto [loss, d_images, d_texts] =
        ops::classification_loss(inputs.image_features, inputs.text_features, labels, classification,
                                 needs_image_gradient, needs_text_gradient);
    return {loss, d_images, d_texts};
  };
  if (options.processes == nullptr) return loss_of(inputs.labels);

  const Share& own = inputs.own;
  at::Tensor sum = at::zeros({1}, inputs.labels.options().dtype(at::kFloat));
  ops::ContrastiveLoss loss;
  if (own.count > 0) {
    const at::Tensor weight = weight_of(own, inputs.labels, options.class_weights);
    classification.loss_scale = inputs.loss_scale.defined() ? inputs.loss_scale * weight : weight;
    loss = loss_of(inputs.labels.narrow(0, own.first, own.count));
    sum.add_(loss.loss * weight);
  }
  options.processes->all_reduce_sum(sum);
  loss.loss = sum.squeeze(0);
  return loss;
}

}  // namespace

Share own_share(std::int64_t batch, const ProcessGroup* processes) {
  return processes == nullptr ? Share{0, batch} : share_of(batch, processes->rank(), processes->size());
}

TrainingStepOptions for_share(TrainingStepOptions options) {
  if (options.processes != nullptr)
    options.batch_size = largest_share(options.batch_size, options.processes->size());
  return options;
}

ops::ContrastiveLoss batch_loss(const TrainingStepOptions& options, const LossInputs& inputs,
                                bool needs_image_gradient, bool needs_text_gradient) {
  return options.loss == Loss::kContrastive
             ? contrastive(options, inputs, needs_image_gradient, needs_text_gradient)
             : classification(options, inputs, needs_image_gradient, needs_text_gradient);
}

}  // namespace clip_lora::engine
