#include "clip_lora/lora/adapter.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::lora {
namespace {

using Slot = std::optional<ops::LowRank>;

/// A ~ U(−1/√in, 1/√in), which is Kaiming's uniform with a = √5; B = 0.
ops::LowRank fresh_update(std::int64_t width, const LoraOptions& options, at::Device device) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(width));
  const auto float32 = at::TensorOptions().dtype(at::kFloat);
  ops::LowRank update;
  update.a = at::empty({options.rank, width}, float32).uniform_(-bound, bound).to(device).requires_grad_();
  update.b = at::zeros({width, options.rank}, float32.device(device)).requires_grad_();
  update.scaling = options.scaling();
  update.dropout = options.dropout;
  return update;
}

ops::AttentionLora fresh_block(std::int64_t width, const LoraOptions& options, at::Device device) {
  ops::AttentionLora lora;
  if (options.projections.q) lora.q = fresh_update(width, options, device);
  if (options.projections.k) lora.k = fresh_update(width, options, device);
  if (options.projections.v) lora.v = fresh_update(width, options, device);
  if (options.projections.o) lora.o = fresh_update(width, options, device);
  return lora;
}

model::Transformer& tower_of(model::Clip& clip, Tower tower) {
  return tower == Tower::kText ? clip->transformer : clip->visual->transformer;
}

/// Calls visit(name, update) for each adapted projection, in the order q, k, v, o, under its name in adapter files.
template <typename Visit>
void for_each_update(const ops::AttentionLora& lora, const Visit& visit) {
  if (lora.q) visit("q_proj", *lora.q);
  if (lora.k) visit("k_proj", *lora.k);
  if (lora.v) visit("v_proj", *lora.v);
  if (lora.o) visit("proj", *lora.o);
}

/// [3D, D] with the updates of q, k and v merged into their thirds.
torch::Tensor merged_in_proj(const torch::Tensor& weight, const ops::AttentionLora& lora) {
  const auto parts = weight.chunk(3, 0);
  const auto merged = [](const torch::Tensor& part, const Slot& update) {
    return update ? ops::merged_weight(part, *update) : part;
  };
  return at::cat({merged(parts[0], lora.q), merged(parts[1], lora.k), merged(parts[2], lora.v)}, 0);
}

}  // namespace

Adapter::Adapter(const model::Clip& clip, const LoraOptions& options) : options_(options) {
  options_.validate();
  const auto add_tower = [&](Tower tower, const model::TowerArchitecture& architecture) {
    if (options_.rank > architecture.width) {
      throw ConfigError("--r " + std::to_string(options_.rank) + ": expected at most the " +
                        (tower == Tower::kText ? "text" : "vision") + " tower's width, " +
                        std::to_string(architecture.width));
    }
    for (const std::int64_t index : blocks_at(options_.position, architecture.layers)) {
      blocks_.push_back({tower, index, fresh_block(architecture.width, options_, clip->device())});
    }
  };
  const model::ClipArchitecture& architecture = clip->architecture();
  if (options_.encoder != Encoder::kVision) add_tower(Tower::kText, architecture.text);
  if (options_.encoder != Encoder::kText) add_tower(Tower::kVision, architecture.vision);
  if (blocks_.empty()) {
    throw ConfigError("--position " + to_string(options_.position) + " adapts no block of this model (" +
                      model::describe(architecture) + ") (hint: --position all)");
  }
}

std::vector<torch::Tensor> Adapter::parameters() const {
  std::vector<torch::Tensor> parameters;
  for (const auto& block : blocks_) {
    for_each_update(block.lora, [&](const char*, const ops::LowRank& update) {
      parameters.push_back(update.a);
      parameters.push_back(update.b);
    });
  }
  return parameters;
}

io::StateDict Adapter::state_dict() const {
  io::StateDict tensors;
  for (const auto& block : blocks_) {
    const std::string prefix = std::string(block.tower == Tower::kText ? "" : "visual.") + "transformer.resblocks." +
                               std::to_string(block.index) + ".attn.";
    for_each_update(block.lora, [&](const char* name, const ops::LowRank& update) {
      tensors[prefix + name + ".w_lora_A"] = update.a;
      tensors[prefix + name + ".w_lora_B"] = update.b;
    });
  }
  return tensors;
}

std::int64_t Adapter::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& parameter : parameters()) count += parameter.numel();
  return count;
}

void Adapter::attach(model::Clip& clip) const {
  for (const auto& block : blocks_) tower_of(clip, block.tower)->block(block.index).attn->lora = block.lora;
}

void Adapter::detach(model::Clip& clip) {
  for (auto* transformer : {&clip->transformer, &clip->visual->transformer}) {
    for (std::int64_t i = 0; i < (*transformer)->layers(); ++i) (*transformer)->block(i).attn->lora = {};
  }
}

MergedScope::MergedScope(model::Clip clip, const Adapter& adapter) : clip_(std::move(clip)) {
  const at::NoGradGuard no_grad;
  for (const auto& block : adapter.blocks()) {
    model::AttentionImpl& attention = *tower_of(clip_, block.tower)->block(block.index).attn;
    torch::Tensor& out_proj_weight = attention.out_proj->weight;
    saved_.push_back({&attention, attention.in_proj_weight.data(), out_proj_weight.data(), attention.lora});
    attention.in_proj_weight.set_data(merged_in_proj(attention.in_proj_weight, block.lora));
    if (block.lora.o) out_proj_weight.set_data(ops::merged_weight(out_proj_weight, *block.lora.o));
    attention.lora = {};
  }
}

MergedScope::~MergedScope() {
  for (const auto& saved : saved_) {
    saved.attention->in_proj_weight.set_data(saved.in_proj_weight);
    saved.attention->out_proj->weight.set_data(saved.out_proj_weight);
    saved.attention->lora = saved.lora;
  }
}

}  // namespace clip_lora::lora
