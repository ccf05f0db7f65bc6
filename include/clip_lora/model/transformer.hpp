#pragma once

#include <torch/nn/modules/container/modulelist.h>

#include <cstdint>

#include "clip_lora/model/architecture.hpp"
#include "clip_lora/model/layers.hpp"
#include "clip_lora/ops/attention.hpp"
#include "clip_lora/ops/residual_adapter.hpp"

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
  ops::AttentionLora lora;  ///< empty, or filled by lora::LoraAdapter

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

/// What one draw of a residual adapter's dropping drops.
enum class DropUnit {
  kPosition,  ///< a position of the sequence, in all samples alike
  kSample,    ///< a sample
  kModule     ///< the whole module
};

/// A place for a residual adapter behind a module: z becomes h(z).
struct ResidualSlot {
  ops::ResidualAdapter adapter;  ///< float32
  double drop = 0.0;             ///< probability of δ = 0 in training, else 1 / (1 − drop); [0, 1)
  DropUnit unit = DropUnit::kPosition;
};

/// What is attached to a block; as it stands, nothing.
struct BlockAdapters {
  ops::AttentionLora lora;  ///< of attention's projections
  ResidualSlot attention;   ///< behind attention, before its residual sum
  ResidualSlot mlp;         ///< behind the multilayer perceptron
};

/// A block's weights that adapters change; names as in the checkpoint, shapes as in its modules.
struct BlockWeights {
  torch::Tensor in_proj_weight;
  torch::Tensor in_proj_bias;
  torch::Tensor out_proj_weight;
  torch::Tensor out_proj_bias;
  torch::Tensor c_fc_weight;
  torch::Tensor c_fc_bias;
  torch::Tensor c_proj_weight;
  torch::Tensor c_proj_bias;

  /// Calls visit on each.
  template <typename Visit>
  void for_each(const Visit& visit) {
    for (auto* weight : {&in_proj_weight, &in_proj_bias, &out_proj_weight, &out_proj_bias, &c_fc_weight,
                         &c_fc_bias, &c_proj_weight, &c_proj_bias}) {
      visit(*weight);
    }
  }
};

/// A pre-norm block: x += h(attn(ln_1(x))); x += h(mlp(ln_2(x))), h being what is attached behind a module,
/// if anything is. Nothing is dropped here but by low-rank updates: a residual adapter's dropping is
/// engine's.
class ResidualAttentionBlockImpl : public torch::nn::Module {
 public:
  ResidualAttentionBlockImpl(const TowerArchitecture& architecture, bool causal);
  torch::Tensor forward(const torch::Tensor& x);  ///< [B, L, D] → [B, L, D]

  /// The weights as they are now; shared, not copied.
  BlockWeights weights() const;
  /// Computes with these from now on, e.g. with some that a graph of gradients leads to. The parameters of
  /// the module stay what they were.
  void use(const BlockWeights& weights);

  BlockAdapters adapters() const { return {attn->lora, attention_slot, mlp_slot}; }
  void attach(const BlockAdapters& adapters);

  Attention attn{nullptr};
  LayerNorm ln_1{nullptr};
  Mlp mlp{nullptr};
  LayerNorm ln_2{nullptr};
  ResidualSlot attention_slot;
  ResidualSlot mlp_slot;
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
