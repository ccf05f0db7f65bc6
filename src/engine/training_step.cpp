#include "clip_lora/engine/training_step.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "clip_lora/ops/elementwise.hpp"

namespace clip_lora::engine {
namespace {

constexpr std::int64_t kPromptsPerChunk = 1024;

/// Features of the classes out of those of their prompts: the normalised mean. features: [C·T, E]; returns
/// [C, E].
at::Tensor mean_over_prompts(const at::Tensor& features, std::int64_t prompts_per_class) {
  if (prompts_per_class == 1) return features;
  return ops::l2_normalise(features.view({-1, prompts_per_class, features.size(1)}).mean(1));
}

}  // namespace

at::Tensor classification_logits(const at::Tensor& image_features, const at::Tensor& text_features) {
  return kLogitScale * at::matmul(image_features, text_features.t());
}

at::Tensor prompt_features(model::Clip& clip, const model::Prompts& prompts) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = prompts.ids.size(0);
  std::vector<at::Tensor> chunks;
  for (std::int64_t begin = 0; begin < count; begin += kPromptsPerChunk) {
    const auto chunk = prompts.slice(begin, std::min(count, begin + kPromptsPerChunk)).to(clip->device());
    chunks.push_back(ops::l2_normalise(clip->encode_text(chunk)));
  }
  return at::cat(chunks);
}

TrainingStep::TrainingStep(model::Clip clip, lora::Adapter adapter, model::Prompts prompts,
                           const TrainingStepOptions& options)
    : clip_(std::move(clip)),
      adapter_(std::move(adapter)),
      prompts_(std::move(prompts)),
      options_(options),
      optimiser_(adapter_.parameters(), options.optimiser) {
  const std::int64_t count = prompts_.ids.size(0), per_class = options_.prompts_per_class;
  TORCH_CHECK(per_class >= 1 && count % per_class == 0, count, " prompts are not ", per_class,
              " for each class");
  TORCH_CHECK(!options_.class_weights.defined() || options_.class_weights.numel() == count / per_class,
              "expected a weight for each of ", count / per_class, " classes");
  if (clip_->dtype() == at::kHalf) scaler_.emplace(clip_->device());
  if (adapter_.options().encoder == lora::Encoder::kVision) {
    frozen_text_features_ = mean_over_prompts(prompt_features(clip_, prompts_), per_class);
  }
  adapter_.attach(clip_);
  clip_->train();  // dropout
}

TrainingStep::~TrainingStep() {
  clip_->eval();
  lora::Adapter::detach(clip_);
}

double TrainingStep::learning_rate() const {
  return cosine_learning_rate(options_.optimiser, iteration_, options_.total_iterations);
}

at::Tensor TrainingStep::encode_classes() {
  if (frozen_text_features_.defined()) return frozen_text_features_;
  return mean_over_prompts(ops::l2_normalise(clip_->encode_text(prompts_)), options_.prompts_per_class);
}

at::Tensor TrainingStep::encode_images(const at::Tensor& images) {
  const bool with_gradients = adapter_.options().encoder != lora::Encoder::kText;
  const at::AutoGradMode mode(with_gradients);
  return ops::l2_normalise(clip_->encode_image(images));
}

at::Tensor TrainingStep::compute_gradients(const at::Tensor& images, const at::Tensor& labels) {
  optimiser_.zero_gradients();
  const at::Tensor logits = classification_logits(encode_images(images), encode_classes());  // [B, C]
  const auto& weights = options_.class_weights;
  const at::Tensor loss =
      at::cross_entropy_loss(logits, labels, weights.defined() ? std::optional(weights) : std::nullopt);
  (scaler_ ? scaler_->scale(loss) : loss).backward();
  return loss.detach();
}

at::Tensor TrainingStep::run(const at::Tensor& images, const at::Tensor& labels) {
  const at::Tensor loss = compute_gradients(images, labels);
  at::Tensor found_inf;
  if (scaler_) {
    std::vector<at::Tensor> gradients;
    for (const auto& parameter : optimiser_.parameters()) gradients.push_back(parameter.grad());
    found_inf = scaler_->unscale(gradients);
    scaler_->update(found_inf);
  }
  optimiser_.step(learning_rate(), found_inf);
  ++iteration_;
  return loss;
}

}  // namespace clip_lora::engine
