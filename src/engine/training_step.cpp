#include "clip_lora/engine/training_step.hpp"

#include <ATen/ATen.h>

#include <utility>

#include "clip_lora/ops/elementwise.hpp"

namespace clip_lora::engine {

at::Tensor classification_logits(const at::Tensor& image_features, const at::Tensor& text_features) {
  return kLogitScale * at::matmul(image_features, text_features.t());
}

TrainingStep::TrainingStep(model::Clip clip, lora::Adapter adapter, model::Prompts prompts,
                           const OptimiserOptions& options, std::int64_t total_iterations)
    : clip_(std::move(clip)),
      adapter_(std::move(adapter)),
      prompts_(std::move(prompts)),
      options_(options),
      total_iterations_(total_iterations),
      optimiser_(adapter_.parameters(), options) {
  if (clip_->dtype() == at::kHalf) scaler_.emplace(clip_->device());
  if (adapter_.options().encoder == lora::Encoder::kVision) {
    const at::NoGradGuard no_grad;
    frozen_text_features_ = ops::l2_normalise(clip_->encode_text(prompts_));
  }
  adapter_.attach(clip_);
  clip_->train();  // dropout
}

TrainingStep::~TrainingStep() {
  clip_->eval();
  lora::Adapter::detach(clip_);
}

double TrainingStep::learning_rate() const { return cosine_learning_rate(options_, iteration_, total_iterations_); }

at::Tensor TrainingStep::encode_prompts() {
  if (frozen_text_features_.defined()) return frozen_text_features_;
  return ops::l2_normalise(clip_->encode_text(prompts_));
}

at::Tensor TrainingStep::encode_images(const at::Tensor& images) {
  const bool with_gradients = adapter_.options().encoder != lora::Encoder::kText;
  const at::AutoGradMode mode(with_gradients);
  return ops::l2_normalise(clip_->encode_image(images));
}

at::Tensor TrainingStep::compute_gradients(const at::Tensor& images, const at::Tensor& labels) {
  optimiser_.zero_gradients();
  const at::Tensor logits = classification_logits(encode_images(images), encode_prompts());  // [B, C]
  const at::Tensor loss = at::cross_entropy_loss(logits, labels);
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
