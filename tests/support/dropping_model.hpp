#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::testing {

/// A residual adapter of a model.
struct Module {
  lora::Tower tower;
  std::int64_t block;
  bool is_mlp;  ///< behind the multilayer perceptron, not attention
};

/// δ of a module for rows [B, L], float32 broadcast against them.
using Dropping = std::function<at::Tensor(const Module& module, std::int64_t batch, std::int64_t length)>;

// What model::Clip encodes with what is attached to it, by plain operations that autograd goes through, and
// with δ, which the model leaves to the engine.

/// images: [B, 3, R, R]; returns [B, E], not normalised.
at::Tensor dropping_image_features(model::Clip& clip, const at::Tensor& images, const Dropping& dropping);

/// Returns [C, E], not normalised. All prompts are as long as the longest.
at::Tensor dropping_text_features(model::Clip& clip, const model::Prompts& prompts, const Dropping& dropping);

}  // namespace clip_lora::testing
