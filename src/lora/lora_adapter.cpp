#include "clip_lora/lora/lora_adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/summary.hpp"
#include "places.hpp"
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

bool in_order(const AdaptedBlock& a, const AdaptedBlock& b) {
  return std::pair(a.tower, a.index) < std::pair(b.tower, b.index);
}

torch::Tensor merged(const torch::Tensor& weight, const Slot& update, double scale) {
  if (!update) return weight;
  ops::LowRank scaled = *update;
  scaled.scaling *= scale;
  return ops::merged_weight(weight, scaled);
}

/// [3D, D] with the updates of q, k and v merged into their thirds.
torch::Tensor merged_in_proj(const torch::Tensor& weight, const ops::AttentionLora& lora, double scale) {
  if (!lora.q && !lora.k && !lora.v) return weight;
  const auto parts = weight.chunk(3, 0);
  return at::cat(
      {merged(parts[0], lora.q, scale), merged(parts[1], lora.k, scale), merged(parts[2], lora.v, scale)}, 0);
}

}  // namespace

LoraAdapter::LoraAdapter(const model::Clip& clip, const LoraOptions& options)
    : options_(options),
      text_depth_(clip->architecture().text.layers),
      vision_depth_(clip->architecture().vision.layers) {
  options_.validate();
  for (const Place& place : places_at(clip, options_.encoder, options_.position)) {
    const std::int64_t width = architecture_of(clip, place.tower).width;
    if (options_.rank > width) {
      throw ConfigError("--r " + std::to_string(options_.rank) + ": expected at most the " +
                        to_string(place.tower) + " tower's width, " + std::to_string(width));
    }
    blocks_.push_back({place.tower, place.index, fresh_block(width, options_, clip->device())});
  }
  set_places();
}

LoraAdapter::LoraAdapter(const model::Clip& clip, const LoraOptions& options,
                         std::vector<AdaptedBlock> blocks)
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
  set_places();
}

void LoraAdapter::set_places() {
  for (const auto& block : blocks_) places_.push_back({block.tower, block.index});
}

const std::string& LoraAdapter::method() const {
  static const std::string name = "lora";
  return name;
}

std::vector<torch::Tensor> LoraAdapter::parameters() const {
  std::vector<torch::Tensor> parameters;
  for (const auto& block : blocks_) {
    for_each_update(block.lora, [&](const Projection&, const ops::LowRank& update) {
      parameters.push_back(update.a);
      parameters.push_back(update.b);
    });
  }
  return parameters;
}

io::StateDict LoraAdapter::state_dict() const {
  io::StateDict tensors;
  for (const auto& block : blocks_) {
    const std::string prefix = block_name({block.tower, block.index}) + ".attn.";
    for_each_update(block.lora, [&](const Projection& projection, const ops::LowRank& update) {
      tensors[prefix + projection.name + ".w_lora_A"] = update.a;
      tensors[prefix + projection.name + ".w_lora_B"] = update.b;
    });
  }
  return tensors;
}

bool LoraAdapter::is_at(Position position) const {
  const auto fits = [&](Tower tower, std::int64_t depth) {
    std::vector<std::int64_t> adapted;
    for (const auto& block : blocks_) {
      if (block.tower == tower) adapted.push_back(block.index);
    }
    return adapted.empty() || adapted == blocks_at(position, depth);
  };
  return fits(Tower::kText, text_depth_) && fits(Tower::kVision, vision_depth_);
}

LoraAdapter LoraAdapter::scaled(double factor) const {
  LoraAdapter result = *this;
  result.options_.alpha *= factor;
  for (auto& block : result.blocks_) {
    for (const Projection& projection : kProjections) {
      auto& update = block.lora.*projection.update;
      if (!update) continue;
      const auto scaling_of = [rank = update->a.size(0)](const LoraOptions& options) {
        return update_scaling(options.alpha, rank, options.rank_stabilised);
      };
      // What alpha gives goes on to be just that, to the last bit.
      const bool is_alphas = update->scaling == scaling_of(options_);
      update->scaling = is_alphas ? scaling_of(result.options_) : update->scaling * factor;
    }
  }
  return result;
}

model::BlockWeights LoraAdapter::adapted(std::size_t place, const model::BlockWeights& frozen,
                                         double scale) const {
  const ops::AttentionLora& lora = blocks_.at(place).lora;
  model::BlockWeights weights = frozen;
  weights.in_proj_weight = merged_in_proj(frozen.in_proj_weight, lora, scale);
  weights.out_proj_weight = merged(frozen.out_proj_weight, lora.o, scale);
  return weights;
}

bool LoraAdapter::attach(model::Clip& clip) const {
  for (const auto& block : blocks_) tower_of(clip, block.tower)->block(block.index).attn->lora = block.lora;
  return true;
}

AdapterOptions LoraAdapter::options() const {
  return {.method = method(), .lora = summarise(*this).options.value_or(options_), .r_adapter = {}};
}

std::map<std::string, std::string> LoraAdapter::settings() const { return settings_of(summarise(*this)); }

void LoraAdapter::set_training_options(const AdapterOptions& options) {
  options_.dropout = options.lora.dropout;
  options_.validate();
  for (auto& block : blocks_) {
    for (const Projection& projection : kProjections) {
      if (auto& update = block.lora.*projection.update) update->dropout = options_.dropout;
    }
  }
}

}  // namespace clip_lora::lora
