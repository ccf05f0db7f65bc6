#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::train {

/// Token ids of all prompts, those of a class together. On the CPU. Throws DataError for a prompt that is
/// longer than the model's context.
model::Prompts tokenize_prompts(const text::Tokenizer& tokenizer, const text::ClassPrompts& prompts,
                                std::int64_t context_length);

/// Text features of the classes, [C, E] float32 on the model's device: each prompt's features normalised,
/// their mean over the class's prompts (at least one) normalised again. Encoded in chunks without gradients.
/// Throws as tokenize_prompts.
at::Tensor class_features(const model::Clip& clip, const text::Tokenizer& tokenizer,
                          const text::ClassPrompts& prompts);

/// Probabilities of the classes, [B, C] float32 on the model's device: softmax of 100 · f·tᵀ. pixels: [B, R,
/// R, 3] uint8. Throws Error, with their number, if some pictures' are not finite.
at::Tensor class_probabilities(engine::ImageEncoder& encoder, const at::Tensor& class_features,
                               const at::Tensor& pixels);

/// What a model says of every picture of a split, in its order. CPU tensors. K = min(5, C).
struct Predictions {
  at::Tensor labels;         ///< [N] int64, the right ones
  at::Tensor classes;        ///< [N, K] int64, the likeliest first; of equal ones the lower label
  at::Tensor probabilities;  ///< [N, K] float32, theirs
};

/// Predictions for everything that `loader` yields. `class_features` as above. `on_progress` gets the number
/// of images done after each batch. Throws Interrupted between two batches once a signal is pending, and at
/// the end Error, with their number, if some pictures' probabilities are not finite.
Predictions evaluate(const model::Clip& clip, const at::Tensor& class_features,
                     data::EvaluationLoader& loader, const std::function<void(std::int64_t)>& on_progress);

}  // namespace clip_lora::train
