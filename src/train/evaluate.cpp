#include "clip_lora/train/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/ops/elementwise.hpp"

namespace clip_lora::train {
namespace {

constexpr std::int64_t kLikeliest = 5;

/// 100 · f·tᵀ, [B, C] float32 on the model's device.
at::Tensor class_logits(engine::ImageEncoder& encoder, const at::Tensor& class_features,
                        const at::Tensor& pixels) {
  return engine::classification_logits(ops::l2_normalise(encoder.encode(pixels)), class_features);
}

/// Rows of [B, C] that have an entry which is not finite. [] int64, on their device.
at::Tensor rows_not_finite(const at::Tensor& rows) { return rows.isfinite().all(1).logical_not().sum(); }

void require_finite(const at::Tensor& count, std::int64_t images) {
  const auto bad = count.item<std::int64_t>();
  if (bad == 0) return;
  throw Error("the class probabilities of " + std::to_string(bad) + " of " + std::to_string(images) +
              " images are not finite (hint: --precision bf16 or fp32; or the adapter's training diverged)");
}

}  // namespace

model::Prompts tokenize_prompts(const text::Tokenizer& tokenizer, const text::ClassPrompts& prompts,
                                std::int64_t context_length) {
  std::vector<std::vector<std::int64_t>> rows;
  for (const auto& of_class : prompts) {
    for (const auto& prompt : of_class) {
      rows.push_back(tokenizer.tokenize(prompt, static_cast<int>(context_length)));
    }
  }
  return model::make_prompts(rows);
}

at::Tensor class_features(const model::Clip& clip, const text::Tokenizer& tokenizer,
                          const text::ClassPrompts& prompts) {
  const at::NoGradGuard no_grad;
  std::vector<std::int64_t> counts;
  for (const auto& of_class : prompts) counts.push_back(static_cast<std::int64_t>(of_class.size()));
  TORCH_CHECK(std::find(counts.begin(), counts.end(), 0) == counts.end(), "a class without prompts");
  const at::Tensor features = engine::prompt_features(
      clip, tokenize_prompts(tokenizer, prompts, clip->architecture().context_length));  // [sum of counts, E]
  if (features.size(0) == static_cast<std::int64_t>(prompts.size())) return features;
  std::vector<at::Tensor> means;
  for (const auto& of_class : features.split_with_sizes(counts)) means.push_back(of_class.mean(0));
  return ops::l2_normalise(at::stack(means));
}

at::Tensor class_probabilities(engine::ImageEncoder& encoder, const at::Tensor& class_features,
                               const at::Tensor& pixels) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits = class_logits(encoder, class_features, pixels);
  require_finite(rows_not_finite(logits), logits.size(0));
  return logits.softmax(1);
}

Predictions evaluate(const model::Clip& clip, const at::Tensor& class_features,
                     data::EvaluationLoader& loader, const std::function<void(std::int64_t)>& on_progress) {
  const at::NoGradGuard no_grad;
  engine::ImageEncoder encoder(clip, loader.preprocessing());
  const std::int64_t kept = std::min(kLikeliest, class_features.size(0));
  const auto whole = at::TensorOptions(clip->device()).dtype(at::kLong);
  std::vector<at::Tensor> labels = {at::empty({0}, at::kLong)};
  std::vector<at::Tensor> classes = {at::empty({0, kept}, whole)};
  std::vector<at::Tensor> probabilities = {at::empty({0, kept}, whole.dtype(at::kFloat))};
  at::Tensor not_finite = at::zeros({}, whole);  // nothing waits for the device before the last batch
  std::int64_t done = 0;
  while (const auto batch = loader.next()) {
    const at::Tensor logits = class_logits(encoder, class_features, batch->pixels);
    // By logits, of which fewer are equal than of probabilities; stable, so that the lower label comes first.
    const at::Tensor order = std::get<1>(at::sort(logits, /*stable=*/true, /*dim=*/1, /*descending=*/true));
    labels.push_back(batch->labels);
    classes.push_back(order.narrow(1, 0, kept).contiguous());
    probabilities.push_back(logits.softmax(1).gather(1, classes.back()));
    not_finite += rows_not_finite(logits);
    done += batch->labels.size(0);
    on_progress(done);
    if (const int signal = pending_interrupt()) {
      throw Interrupted(signal, "interrupted after " + std::to_string(done) + " images of the evaluation");
    }
  }
  require_finite(not_finite, done);
  return {at::cat(labels), at::cat(classes).cpu(), at::cat(probabilities).cpu()};
}

}  // namespace clip_lora::train
