#include "clip_lora/model/transformer.hpp"

#include <ATen/ATen.h>

#include "clip_lora/ops/elementwise.hpp"

namespace clip_lora::model {
namespace {

torch::Tensor activated(const torch::Tensor& x, Activation activation) {
  return activation == Activation::kQuickGelu ? ops::quick_gelu(x) : at::gelu(x);
}

torch::Tensor adapted(const torch::Tensor& z, const ResidualSlot& slot) {
  return slot.adapter.is_empty() ? z : ops::residual_adapter(z, slot.adapter, /*factors=*/{});
}

}  // namespace

AttentionImpl::AttentionImpl(std::int64_t width, std::int64_t heads, bool causal)
    : in_proj_weight(register_parameter("in_proj_weight", at::empty({3 * width, width}), false)),
      in_proj_bias(register_parameter("in_proj_bias", at::empty({3 * width}), false)),
      out_proj(register_module("out_proj", Linear(width, width))),
      heads_(heads),
      causal_(causal) {}

torch::Tensor AttentionImpl::forward(const torch::Tensor& x) const {
  const ops::DropoutMasks masks = is_training() ? ops::draw_dropout_masks(lora, x) : ops::DropoutMasks{};
  return ops::attention(x, {in_proj_weight, in_proj_bias, out_proj->weight, out_proj->bias}, lora, masks,
                        heads_, causal_);
}

MlpImpl::MlpImpl(const TowerArchitecture& architecture)
    : c_fc(register_module("c_fc", Linear(architecture.width, architecture.mlp_width))),
      c_proj(register_module("c_proj", Linear(architecture.mlp_width, architecture.width))),
      activation_(architecture.activation) {}

torch::Tensor MlpImpl::forward(const torch::Tensor& x) { return c_proj(activated(c_fc(x), activation_)); }

ResidualAttentionBlockImpl::ResidualAttentionBlockImpl(const TowerArchitecture& architecture, bool causal)
    : attn(register_module("attn", Attention(architecture.width, architecture.heads, causal))),
      ln_1(register_module("ln_1", LayerNorm(architecture.width, architecture.layer_norm_epsilon))),
      mlp(register_module("mlp", Mlp(architecture))),
      ln_2(register_module("ln_2", LayerNorm(architecture.width, architecture.layer_norm_epsilon))) {}

torch::Tensor ResidualAttentionBlockImpl::forward(const torch::Tensor& x) {
  const torch::Tensor attended = x + adapted(attn(ln_1(x)), attention_slot);
  return attended + adapted(mlp(ln_2(attended)), mlp_slot);
}

BlockWeights ResidualAttentionBlockImpl::weights() const {
  return {.in_proj_weight = attn->in_proj_weight,
          .in_proj_bias = attn->in_proj_bias,
          .out_proj_weight = attn->out_proj->weight,
          .out_proj_bias = attn->out_proj->bias,
          .c_fc_weight = mlp->c_fc->weight,
          .c_fc_bias = mlp->c_fc->bias,
          .c_proj_weight = mlp->c_proj->weight,
          .c_proj_bias = mlp->c_proj->bias};
}

void ResidualAttentionBlockImpl::use(const BlockWeights& weights) {
  attn->in_proj_weight = weights.in_proj_weight;
  attn->in_proj_bias = weights.in_proj_bias;
  attn->out_proj->weight = weights.out_proj_weight;
  attn->out_proj->bias = weights.out_proj_bias;
  mlp->c_fc->weight = weights.c_fc_weight;
  mlp->c_fc->bias = weights.c_fc_bias;
  mlp->c_proj->weight = weights.c_proj_weight;
  mlp->c_proj->bias = weights.c_proj_bias;
}

void ResidualAttentionBlockImpl::attach(const BlockAdapters& adapters) {
  attn->lora = adapters.lora;
  attention_slot = adapters.attention;
  mlp_slot = adapters.mlp;
}

TransformerImpl::TransformerImpl(const TowerArchitecture& architecture, bool causal)
    : resblocks_(register_module("resblocks", torch::nn::ModuleList())) {
  TORCH_CHECK(architecture.mlp_width > 0, "a tower without mlp_width");
  TORCH_CHECK(architecture.heads > 0 && architecture.width % architecture.heads == 0, "a tower of width ",
              architecture.width, " with ", architecture.heads, " heads");
  for (std::int64_t i = 0; i < architecture.layers; ++i) {
    resblocks_->push_back(ResidualAttentionBlock(architecture, causal));
  }
}

torch::Tensor TransformerImpl::forward(const torch::Tensor& x) {
  torch::Tensor rows = x;
  for (std::int64_t i = 0; i < layers(); ++i) rows = block(i).forward(rows);
  return rows;
}

ResidualAttentionBlockImpl& TransformerImpl::block(std::int64_t index) {
  return resblocks_->at<ResidualAttentionBlockImpl>(static_cast<std::size_t>(index));
}

std::int64_t TransformerImpl::layers() const { return static_cast<std::int64_t>(resblocks_->size()); }

}  // namespace clip_lora::model
