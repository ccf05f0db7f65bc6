#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "clip_lora/model/clip.hpp"

namespace clip_lora::model {

// Inference graphs in ONNX (IR version 8, opset 17), as the bytes of a ModelProto. `clip` is float32, on the
// CPU, and has no adapter in it (merge it first). `dtype`, kFloat or kHalf, is that of the stored weights and
// of the arithmetic; inputs, outputs, the normalisation of features and all that follows it are float32. The
// batch axis B is dynamic. Weights have the names and shapes of OpenAI's checkpoints. `metadata` becomes the
// model's metadata_props. All throw ConfigError for a graph beyond protobuf's 2 GiB, and for weights that are
// too large for float16. Source: https://github.com/onnx/onnx/blob/main/docs/IR.md and Operators.md.

/// Input `images` [B, 3, R, R], normalised as the preprocessing says; outputs `probabilities` [B, C] =
/// softmax(exp(logit_scale) · cosine), and `logits` [B, C] before it. class_features: [C, E] float32,
/// normalised.
std::string onnx_classifier(const Clip& clip, const at::Tensor& class_features, at::ScalarType dtype,
                            const std::map<std::string, std::string>& metadata);

/// Input `images` [B, 3, R, R]; output `image_features` [B, E], normalised.
std::string onnx_image_tower(const Clip& clip, at::ScalarType dtype,
                             const std::map<std::string, std::string>& metadata);

/// Input `tokens` [B, context_length] int64, zero-padded; output `text_features` [B, E], normalised: the row
/// of the largest id, which is the end of the text.
std::string onnx_text_tower(const Clip& clip, at::ScalarType dtype,
                            const std::map<std::string, std::string>& metadata);

}  // namespace clip_lora::model
