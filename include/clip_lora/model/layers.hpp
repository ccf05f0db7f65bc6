#pragma once

#include <torch/nn/cloneable.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

namespace clip_lora::model {

// The leaves of CLIP. Unlike torch::nn's they leave their weights unset when made, because a checkpoint or
// initialise() fills them at once. Parameters have the checkpoint's names, shapes and no gradient.

/// y = x Wᵀ + b. weight: [out, in], bias: [out].
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(std::int64_t in, std::int64_t out);
  torch::Tensor forward(const torch::Tensor& x) const;  ///< [..., in] → [..., out]

  torch::Tensor weight;
  torch::Tensor bias;
};
TORCH_MODULE(Linear);

/// Layer normalisation over the last axis, statistics in float32. weight, bias: [D].
class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(std::int64_t width, double epsilon);
  torch::Tensor forward(const torch::Tensor& x) const;  ///< [..., D] → [..., D]

  torch::Tensor weight;
  torch::Tensor bias;

 private:
  double epsilon_;
};
TORCH_MODULE(LayerNorm);

/// Cuts an image into patches and projects each. weight: [D, 3, patch, patch], no bias.
class PatchEmbeddingImpl : public torch::nn::Module {
 public:
  PatchEmbeddingImpl(std::int64_t width, std::int64_t patch_size_px);
  torch::Tensor forward(const torch::Tensor& images) const;  ///< [B, 3, R, R] → [B, (R / patch)², D]

  torch::Tensor weight;
};
TORCH_MODULE(PatchEmbedding);

/// A row per token id. weight: [vocabulary, D].
class TokenEmbeddingImpl : public torch::nn::Module {
 public:
  TokenEmbeddingImpl(std::int64_t vocabulary, std::int64_t width);
  torch::Tensor forward(const torch::Tensor& ids) const;  ///< [C, L] int64 → [C, L, D]

  torch::Tensor weight;
};
TORCH_MODULE(TokenEmbedding);

}  // namespace clip_lora::model
