#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::train {

/// One prompt per class: `prompt_template` filled with each class name. On the CPU.
/// Throws DataError for a prompt that is longer than the model's context.
model::Prompts class_prompts(const text::Tokenizer& tokenizer, const std::vector<std::string>& class_names,
                             const std::string& prompt_template, std::int64_t context_length);

/// Normalised text features of all prompts, [C, E] float32 on the model's device, encoded in chunks without gradients.
at::Tensor class_features(model::Clip& clip, const model::Prompts& prompts);

/// How often the most similar class is the right one.
struct Accuracy {
  std::int64_t correct = 0;
  std::int64_t total = 0;
  double percent() const { return total == 0 ? 0.0 : 100.0 * static_cast<double>(correct) / static_cast<double>(total); }
};

/// Top-1 accuracy of `clip` over everything that `loader` yields. `class_features` as above. `on_progress` gets the
/// number of images done after each batch.
Accuracy evaluate(model::Clip& clip, const at::Tensor& class_features, data::EvaluationLoader& loader,
                  const std::function<void(std::int64_t)>& on_progress);

}  // namespace clip_lora::train
