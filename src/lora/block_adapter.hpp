#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clip_lora/lora/method.hpp"
#include "json_object.hpp"

namespace clip_lora::lora {

/// The adapter of a method of a few functions.
class BlockAdapter final : public Adapter {
 public:
  /// Fresh. Throws ConfigError.
  BlockAdapter(const std::string& method, const BlockMethod& functions, const model::Clip& clip,
               const AdapterOptions& options);

  const std::string& method() const override { return options_.method; }
  const std::vector<Place>& places() const override { return places_; }
  std::vector<torch::Tensor> parameters() const override;
  /// Every tensor of every block: `visual.transformer.resblocks.0.` and its own name.
  io::StateDict state_dict() const override;
  model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                              double scale) const override;
  bool attach(model::Clip& clip) const override;
  AdapterOptions options() const override { return options_; }
  std::map<std::string, std::string> settings() const override;
  void set_training_options(const AdapterOptions& options) override;

 private:
  BlockMethod functions_;
  AdapterOptions options_;
  std::vector<Place> places_;
  std::vector<io::StateDict> own_;  // by place
};

/// Adapter::settings() of `options`: method, encoder, position and what `flags` name.
std::map<std::string, std::string> settings_of(const AdapterOptions& options,
                                               const std::vector<std::string>& flags);

/// Every option by its flag, with the values that flags take.
nlohmann::ordered_json options_json(const AdapterOptions& options);
/// The options of options_json, of which each may be missing. Throws CheckpointError that begins with
/// `source`.
AdapterOptions options_from_json(const JsonObject& object, const std::string& source);

}  // namespace clip_lora::lora
