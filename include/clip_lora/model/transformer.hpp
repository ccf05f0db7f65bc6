#pragma once

#include <torch/nn/modules/container/modulelist.h>

#include <cstdint>

#include "clip_lora/model/architecture.hpp"
#include "clip_lora/model/layers.hpp"
#include "clip_lora/ops/attention.hpp"

namespace clip_lora::model {

/// Self-attention of one block, with a place for low-rank updates of its projections.
class AttentionImpl : public torch::nn::Module {
 public:
  AttentionImpl(std::int64_t width, std::int64_t heads, bool causal);

  /// [B, L, D] → [B, L, D]. In training mode each update's dropout draws a mask of its own.
  torch::Tensor forward(const torch::Tensor& x) const;

  torch::Tensor in_proj_weight;  ///< [3D, D]: q, k, v
  torch::Tensor in_proj_bias;    ///< [3D]
  Linear out_proj{nullptr};
  ops::AttentionLora lora;  ///< empty, or filled by lora::Adapter

 private:
  std::int64_t heads_;
  bool causal_;
};
TORCH_MODULE(Attention);

/// The block's multilayer perceptron: c_proj(activation(c_fc(x))). M is the tower's mlp_width.
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const TowerArchitecture& architecture);
  torch::Tensor forward(const torch::Tensor& x);  ///< [B, L, D] → [B, L, D]

  Linear c_fc{nullptr};    ///< [M, D]
  Linear c_proj{nullptr};  ///< [D, M]

 private:
  Activation activation_;
};
TORCH_MODULE(Mlp);

/// A pre-norm block: x += attn(ln_1(x)); x += mlp(ln_2(x)).
class ResidualAttentionBlockImpl : public torch::nn::Module {
 public:
  ResidualAttentionBlockImpl(const TowerArchitecture& architecture, bool causal);
  torch::Tensor forward(const torch::Tensor& x);  ///< [B, L, D] → [B, L, D]

  Attention attn{nullptr};
  LayerNorm ln_1{nullptr};
  Mlp mlp{nullptr};
  LayerNorm ln_2{nullptr};
};
TORCH_MODULE(ResidualAttentionBlock);

/// The blocks of one tower, child `resblocks`.
class TransformerImpl : public torch::nn::Module {
 public:
  TransformerImpl(const TowerArchitecture& architecture, bool causal);
  torch::Tensor forward(const torch::Tensor& x);  ///< [B, L, D] → [B, L, D]

  ResidualAttentionBlockImpl& block(std::int64_t index);
  std::int64_t layers() const;

 private:
  torch::nn::ModuleList resblocks_{nullptr};
};
TORCH_MODULE(Transformer);

}  // namespace clip_lora::model
