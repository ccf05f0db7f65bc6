#pragma once

#include <cstdint>
#include <vector>

#include "clip_lora/model/transformer.hpp"

namespace clip_lora::model {

/// Token ids of C prompts, cut after the longest prompt's end: what follows an end token never matters, because of the
/// causal mask.
struct Prompts {
  torch::Tensor ids;  ///< [C, L] int64
  torch::Tensor eot;  ///< [C] int64, each prompt's end-of-text position, < L

  Prompts to(torch::Device device) const;
  Prompts slice(std::int64_t begin, std::int64_t end) const;  ///< prompts begin … end − 1
};

/// Prompts out of zero-padded rows of equal length, e.g. of text::Tokenizer::tokenize. At least one row.
Prompts make_prompts(const std::vector<std::vector<std::int64_t>>& rows);

/// CLIP's image tower.
class VisionTransformerImpl : public torch::nn::Module {
 public:
  explicit VisionTransformerImpl(const ClipArchitecture& architecture);
  torch::Tensor forward(const torch::Tensor& images);  ///< [B, 3, R, R] → [B, E]

  PatchEmbedding conv1{nullptr};
  torch::Tensor class_embedding;       ///< [D]
  torch::Tensor positional_embedding;  ///< [(R / patch)² + 1, D]
  LayerNorm ln_pre{nullptr};
  Transformer transformer{nullptr};
  LayerNorm ln_post{nullptr};
  torch::Tensor proj;  ///< [D, E]
};
TORCH_MODULE(VisionTransformer);

/// OpenAI's CLIP with a vision transformer. Children and parameters have the names of OpenAI's checkpoints.
/// Inputs must be on the model's device; images of its compute type. Made in evaluation mode, without gradients.
class ClipImpl : public torch::nn::Module {
 public:
  /// The weights are unset: see load_clip and initialise.
  explicit ClipImpl(const ClipArchitecture& architecture);

  torch::Tensor encode_image(const torch::Tensor& images);  ///< [B, 3, R, R] → [B, E], not normalised
  torch::Tensor encode_text(const Prompts& prompts);        ///< → [C, E], not normalised

  const ClipArchitecture& architecture() const { return architecture_; }
  torch::Device device() const { return text_projection.device(); }
  torch::ScalarType dtype() const { return text_projection.scalar_type(); }

  VisionTransformer visual{nullptr};
  Transformer transformer{nullptr};
  TokenEmbedding token_embedding{nullptr};
  torch::Tensor positional_embedding;  ///< [context_length, D]
  LayerNorm ln_final{nullptr};
  torch::Tensor text_projection;  ///< [D, E]
  torch::Tensor logit_scale;      ///< [], the logarithm of the factor on cosines

 private:
  ClipArchitecture architecture_;
};
TORCH_MODULE(Clip);

}  // namespace clip_lora::model
