#include "clip_lora/lora/adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "projection.hpp"

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
  for (const Projection& projection : kProjections) {
    if (options.projections.*projection.flag) lora.*projection.update = fresh_update(width, options, device);
  }
  return lora;
}

model::Transformer& tower_of(model::Clip& clip, Tower tower) {
  return tower == Tower::kText ? clip->transformer : clip->visual->transformer;
}

bool in_order(const AdaptedBlock& a, const AdaptedBlock& b) {
  return std::pair(a.tower, a.index) < std::pair(b.tower, b.index);
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

std::string to_string(Tower tower) { return tower == Tower::kText ? "text" : "vision"; }

Adapter::Adapter(const model::Clip& clip, const LoraOptions& options)
    : options_(options),
      text_depth_(clip->architecture().text.layers),
      vision_depth_(clip->architecture().vision.layers) {
  options_.validate();
  const auto add_tower = [&](Tower tower, const model::TowerArchitecture& architecture) {
    if (options_.rank > architecture.width) {
      throw ConfigError("--r " + std::to_string(options_.rank) + ": expected at most the " +
                        to_string(tower) + " tower's width, " + std::to_string(architecture.width));
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

Adapter::Adapter(const model::Clip& clip, const LoraOptions& options, std::vector<AdaptedBlock> blocks)
    : options_(options),
      blocks_(std::move(blocks)),
      text_depth_(clip->architecture().text.layers),
      vision_depth_(clip->architecture().vision.layers) {
  TORCH_CHECK(!blocks_.empty() && std::is_sorted(blocks_.begin(), blocks_.end(), in_order),
              "blocks out of order");
  const auto is_text = [](const AdaptedBlock& block) { return block.tower == Tower::kText; };
  const auto text_blocks = static_cast<std::size_t>(std::count_if(blocks_.begin(), blocks_.end(), is_text));
  options_.encoder = text_blocks == 0                ? Encoder::kVision
                     : text_blocks == blocks_.size() ? Encoder::kText
                                                     : Encoder::kBoth;
  options_.projections = {.q = false, .k = false, .v = false, .o = false};
  for (const auto& block : blocks_) {
    for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank&) {
      options_.projections.*projection.flag = true;
    });
  }
  if (!is_at(options_.position)) {
    const auto positions = every_position();
    const auto fitting =
        std::find_if(positions.begin(), positions.end(), [&](Position p) { return is_at(p); });
    options_.position = fitting == positions.end() ? Position::kAll : *fitting;
  }
}

std::vector<torch::Tensor> Adapter::parameters() const {
  std::vector<torch::Tensor> parameters;
  for (const auto& block : blocks_) {
    for_each_update(block.lora, [&](const Projection&, const ops::LowRank& update) {
      parameters.push_back(update.a);
      parameters.push_back(update.b);
    });
  }
  return parameters;
}

io::StateDict Adapter::state_dict() const {
  io::StateDict tensors;
  for (const auto& block : blocks_) {
    const std::string prefix = std::string(block.tower == Tower::kText ? "" : "visual.") +
                               "transformer.resblocks." + std::to_string(block.index) + ".attn.";
    for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank& update) {
      tensors[prefix + projection.name + ".w_lora_A"] = update.a;
      tensors[prefix + projection.name + ".w_lora_B"] = update.b;
    });
  }
  return tensors;
}

std::int64_t Adapter::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& parameter : parameters()) count += parameter.numel();
  return count;
}

bool Adapter::is_at(Position position) const {
  const auto fits = [&](Tower tower, std::int64_t depth) {
    std::vector<std::int64_t> adapted;
    for (const auto& block : blocks_) {
      if (block.tower == tower) adapted.push_back(block.index);
    }
    return adapted.empty() || adapted == blocks_at(position, depth);
  };
  return fits(Tower::kText, text_depth_) && fits(Tower::kVision, vision_depth_);
}

void Adapter::set_dropout(double dropout) {
  options_.dropout = dropout;
  options_.validate();
  for (auto& block : blocks_) {
    for (const Projection& projection : kProjections) {
      if (auto& update = block.lora.*projection.update) update->dropout = dropout;
    }
  }
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
