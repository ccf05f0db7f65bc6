#include "block_adapter.hpp"

#include <ATen/ATen.h>

#include <utility>

#include "clip_lora/core/errors.hpp"
#include "places.hpp"

namespace clip_lora::lora {
namespace {

using nlohmann::ordered_json;

model::BlockWeights in_float32(model::BlockWeights weights) {
  weights.for_each([](torch::Tensor& weight) { weight = weight.detach().to(at::kFloat); });
  return weights;
}

std::string word_of(const ordered_json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

BlockAdapter::BlockAdapter(const std::string& method, const BlockMethod& functions, const model::Clip& clip,
                           const AdapterOptions& options)
    : functions_(functions), options_(options) {
  options_.method = method;
  options_.validate();
  places_ = places_at(clip, options_.lora.encoder, options_.lora.position);
  model::Clip model = clip;
  for (const Place& place : places_) {
    const auto frozen = in_float32(tower_of(model, place.tower)->block(place.index).weights());
    own_.push_back(functions_.make(frozen, options_));
  }
}

std::vector<torch::Tensor> BlockAdapter::parameters() const {
  std::vector<torch::Tensor> trained;
  for (const auto& own : own_) {
    for (const auto& [name, tensor] : own) {
      if (tensor.requires_grad()) trained.push_back(tensor);
    }
  }
  return trained;
}

io::StateDict BlockAdapter::state_dict() const {
  io::StateDict tensors;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    for (const auto& [name, tensor] : own_[i]) tensors[block_name(places_[i]) + "." + name] = tensor;
  }
  return tensors;
}

model::BlockWeights BlockAdapter::adapted(std::size_t place, const model::BlockWeights& frozen,
                                          double scale) const {
  model::BlockWeights before = in_float32(frozen);
  model::BlockWeights after = functions_.adapted(before, own_.at(place), scale);
  model::BlockWeights result = frozen;
  std::vector<torch::Tensor> unchanged, changed;
  before.for_each([&](const torch::Tensor& weight) { unchanged.push_back(weight); });
  after.for_each([&](const torch::Tensor& weight) { changed.push_back(weight); });
  std::size_t i = 0;
  result.for_each([&](torch::Tensor& weight) {
    if (!changed[i].is_same(unchanged[i])) weight = changed[i].to(weight.scalar_type());
    ++i;
  });
  return result;
}

bool BlockAdapter::attach(model::Clip& clip) const {
  if (!functions_.attach) return false;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    auto& block = tower_of(clip, places_[i].tower)->block(places_[i].index);
    model::BlockAdapters adapters = block.adapters();
    functions_.attach(adapters, own_[i], options_);
    block.attach(adapters);
  }
  return true;
}

std::map<std::string, std::string> BlockAdapter::settings() const {
  return settings_of(options_, functions_.flags);
}

void BlockAdapter::set_training_options(const AdapterOptions& options) {
  options_.lora.dropout = options.lora.dropout;
  options_.r_adapter.drop = options.r_adapter.drop;
  options_.r_adapter.drop_unit = options.r_adapter.drop_unit;
}

std::map<std::string, std::string> settings_of(const AdapterOptions& options,
                                               const std::vector<std::string>& flags) {
  const ordered_json all = options_json(options);
  std::map<std::string, std::string> words;
  for (const char* flag : {"method", "encoder", "position"}) words[flag] = word_of(all.at(flag));
  for (const auto& flag : flags) words[flag] = word_of(all.at(flag));
  return words;
}

ordered_json options_json(const AdapterOptions& options) {
  return {{"method", options.method},
          {"encoder", to_string(options.lora.encoder)},
          {"position", to_string(options.lora.position)},
          {"r", options.lora.rank},
          {"alpha", options.lora.alpha},
          {"dropout_rate", options.lora.dropout},
          {"adapter_rank", options.r_adapter.rank},
          {"adapter_init_scale", options.r_adapter.initial_scale},
          {"adapter_drop", options.r_adapter.drop},
          {"adapter_drop_unit", to_string(options.r_adapter.drop_unit)}};
}

AdapterOptions options_from_json(const JsonObject& object, const std::string& source) {
  const ordered_json& json = object.json();
  AdapterOptions options;
  try {
    options.method = json.value("method", options.method);
    options.lora.encoder = parse_encoder(json.value("encoder", to_string(options.lora.encoder)));
    options.lora.position = parse_position(json.value("position", to_string(options.lora.position)));
    options.lora.rank = object.integer("r", options.lora.rank);
    options.lora.alpha = json.value("alpha", options.lora.alpha);
    options.lora.dropout = json.value("dropout_rate", options.lora.dropout);
    options.r_adapter.rank = object.integer("adapter_rank", options.r_adapter.rank);
    options.r_adapter.initial_scale = json.value("adapter_init_scale", options.r_adapter.initial_scale);
    options.r_adapter.drop = json.value("adapter_drop", options.r_adapter.drop);
    options.r_adapter.drop_unit =
        parse_drop_unit(json.value("adapter_drop_unit", to_string(options.r_adapter.drop_unit)));
    options.validate();
  } catch (const ordered_json::exception& error) {
    throw CheckpointError(source + ": options are of another type: " + error.what());
  } catch (const ConfigError& error) {
    throw CheckpointError(source + ": options are impossible: " + error.what());
  }
  return options;
}

}  // namespace clip_lora::lora
