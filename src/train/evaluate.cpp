#include "clip_lora/train/evaluate.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "clip_lora/text/prompts.hpp"

namespace clip_lora::train {
namespace {

constexpr std::int64_t kPromptsPerChunk = 1024;

}  // namespace

model::Prompts class_prompts(const text::Tokenizer& tokenizer, const std::vector<std::string>& class_names,
                             const std::string& prompt_template, std::int64_t context_length) {
  std::vector<std::vector<std::int64_t>> rows;
  for (const auto& name : class_names) {
    rows.push_back(tokenizer.tokenize(text::fill_template(prompt_template, name), static_cast<int>(context_length)));
  }
  return model::make_prompts(rows);
}

at::Tensor class_features(model::Clip& clip, const model::Prompts& prompts) {
  const at::NoGradGuard no_grad;
  const std::int64_t count = prompts.ids.size(0);
  std::vector<at::Tensor> chunks;
  for (std::int64_t begin = 0; begin < count; begin += kPromptsPerChunk) {
    const model::Prompts chunk = prompts.slice(begin, std::min(count, begin + kPromptsPerChunk)).to(clip->device());
    chunks.push_back(ops::l2_normalise(clip->encode_text(chunk)));
  }
  return at::cat(chunks);
}

Accuracy evaluate(model::Clip& clip, const at::Tensor& class_features, data::EvaluationLoader& loader,
                  const std::function<void(std::int64_t)>& on_progress) {
  const at::NoGradGuard no_grad;
  Accuracy accuracy;
  at::Tensor correct = at::zeros({}, at::TensorOptions(clip->device()).dtype(at::kLong));
  while (const auto batch = loader.next()) {
    const at::Tensor images = data::normalise(batch->pixels, loader.preprocessing(), clip->device(), clip->dtype());
    const at::Tensor features = ops::l2_normalise(clip->encode_image(images));
    const at::Tensor predicted = engine::classification_logits(features, class_features).argmax(1);  // [B]
    correct += predicted.eq(batch->labels.to(clip->device())).sum();
    accuracy.total += batch->labels.size(0);
    on_progress(accuracy.total);
    if (const int signal = pending_interrupt()) {
      throw Interrupted(signal, "interrupted after " + std::to_string(accuracy.total) + " images of the evaluation");
    }
  }
  accuracy.correct = correct.item<std::int64_t>();
  return accuracy;
}

}  // namespace clip_lora::train
