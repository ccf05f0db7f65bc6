#include "clip_lora/lora/adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "places.hpp"

namespace clip_lora::lora {

std::string to_string(Tower tower) { return tower == Tower::kText ? "text" : "vision"; }

model::Transformer& tower_of(model::Clip& clip, Tower tower) {
  return tower == Tower::kText ? clip->transformer : clip->visual->transformer;
}

const model::TowerArchitecture& architecture_of(const model::Clip& clip, Tower tower) {
  const model::ClipArchitecture& architecture = clip->architecture();
  return tower == Tower::kText ? architecture.text : architecture.vision;
}

std::vector<Place> places_at(const model::Clip& clip, Encoder encoder, Position position) {
  std::vector<Place> places;
  for (const Tower tower : {Tower::kText, Tower::kVision}) {
    if (encoder == (tower == Tower::kText ? Encoder::kVision : Encoder::kText)) continue;
    for (const std::int64_t index : blocks_at(position, architecture_of(clip, tower).layers)) {
      places.push_back({tower, index});
    }
  }
  if (!places.empty()) return places;
  throw ConfigError("--position " + to_string(position) + " adapts no block of this model (" +
                    model::describe(clip->architecture()) + ") (hint: --position all)");
}

std::string block_name(const Place& place) {
  return std::string(place.tower == Tower::kText ? "" : "visual.") + "transformer.resblocks." +
         std::to_string(place.index);
}

std::int64_t Adapter::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& parameter : parameters()) count += parameter.numel();
  return count;
}

bool Adapter::adapts(Tower tower) const {
  return std::ranges::any_of(places(), [&](const Place& place) { return place.tower == tower; });
}

void detach(model::Clip& clip) {
  for (const Tower tower : {Tower::kText, Tower::kVision}) {
    auto& transformer = tower_of(clip, tower);
    for (std::int64_t i = 0; i < transformer->layers(); ++i) transformer->block(i).attach({});
  }
}

MergedScope::MergedScope(model::Clip clip, const Adapter& adapter, double scale) : clip_(std::move(clip)) {
  const at::NoGradGuard no_grad;
  try {
    for (std::size_t place = 0; place < adapter.places().size(); ++place) merge(adapter, place, scale);
  } catch (...) {  // of an object that was never made, the destructor is not called
    give_back();
    throw;
  }
}

MergedScope::~MergedScope() { give_back(); }

void MergedScope::merge(const Adapter& adapter, std::size_t place, double scale) {
  const auto& [tower, index] = adapter.places()[place];
  model::ResidualAttentionBlockImpl& block = tower_of(clip_, tower)->block(index);
  Saved& saved = saved_.emplace_back(Saved{&block, {}, block.adapters()});
  model::BlockWeights here = block.weights(), frozen = here;
  frozen.for_each([](torch::Tensor& weight) { weight = weight.data(); });
  here.for_each([&](torch::Tensor& weight) { saved.weights.emplace_back(weight, weight.data()); });
  model::BlockWeights merged = adapter.adapted(place, frozen, scale);
  std::vector<torch::Tensor> values;
  merged.for_each([&](torch::Tensor& weight) { values.push_back(weight.detach()); });
  std::size_t next = 0;
  // In place of the parameters' data, so that whoever lists the parameters sees them merged.
  here.for_each([&](torch::Tensor& weight) { weight.set_data(values[next++]); });
  block.attach({});
}

void MergedScope::give_back() {
  for (auto& saved : saved_) {
    for (auto& [weight, before] : saved.weights) weight.set_data(before);
    saved.block->attach(saved.adapters);
  }
}

}  // namespace clip_lora::lora
