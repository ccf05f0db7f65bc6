#include "clip_lora/train/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "clip_lora/ops/elementwise.hpp"
#include "image_pass.hpp"

namespace clip_lora::train {
namespace {

constexpr std::int64_t kLikeliest = 5;

void require_finite_probabilities(const at::Tensor& count, std::int64_t images) {
  require_finite(count, images, "class probabilities", "images");
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
  at::Tensor features = engine::prompt_features(
      clip, tokenize_prompts(tokenizer, prompts, clip->architecture().context_length));  // [sum of counts, E]
  if (features.size(0) == static_cast<std::int64_t>(prompts.size())) return features;
  std::vector<at::Tensor> means;
  for (const auto& of_class : features.split_with_sizes(counts)) means.push_back(of_class.mean(0));
  return ops::l2_normalise(at::stack(means));
}

at::Tensor class_probabilities(engine::ImageEncoder& encoder, const at::Tensor& class_features,
                               const at::Tensor& pixels) {
  const at::NoGradGuard no_grad;
  const at::Tensor logits =
      engine::classification_logits(ops::l2_normalise(encoder.encode(pixels)), class_features);
  require_finite_probabilities(rows_not_finite(logits), logits.size(0));
  return logits.softmax(1);
}

Predictions evaluate(const model::Clip& clip, const at::Tensor& class_features,
                     data::EvaluationLoader& loader, const std::function<void(std::int64_t)>& on_progress) {
  const at::NoGradGuard no_grad;
  const std::int64_t kept = std::min(kLikeliest, class_features.size(0));
  const auto whole = at::TensorOptions(clip->device()).dtype(at::kLong);
  std::vector<at::Tensor> labels = {at::empty({0}, at::kLong)};
  std::vector<at::Tensor> classes = {at::empty({0, kept}, whole)};
  std::vector<at::Tensor> probabilities = {at::empty({0, kept}, whole.dtype(at::kFloat))};
  at::Tensor not_finite = at::zeros({}, whole);  // nothing waits for the device before the last batch
  const auto predict = [&](const data::Batch& batch, const at::Tensor& image_features) {
    const at::Tensor logits = engine::classification_logits(image_features, class_features);
    // By logits, of which fewer are equal than of probabilities; stable, so that the lower label comes first.
    const at::Tensor order = std::get<1>(at::sort(logits, /*stable=*/true, /*dim=*/1, /*descending=*/true));
    labels.push_back(batch.labels);
    classes.push_back(order.narrow(1, 0, kept).contiguous());
    probabilities.push_back(logits.softmax(1).gather(1, classes.back()));
    not_finite += rows_not_finite(logits);
  };
  require_finite_probabilities(not_finite, encode_images(clip, loader, on_progress, predict));
  return {at::cat(labels), at::cat(classes).cpu(), at::cat(probabilities).cpu()};
}

}  // namespace clip_lora::train
