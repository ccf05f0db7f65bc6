#pragma once

#include <map>
#include <string>
#include <vector>

#include "clip_lora/lora/adapter.hpp"

namespace clip_lora::testing {

/// Another adapter, which it refers to; a test changes what it has to see.
class WrappedAdapter : public lora::Adapter {
 public:
  explicit WrappedAdapter(const lora::Adapter& adapter) : adapter_(adapter) {}

  const std::string& method() const override { return adapter_.method(); }
  const std::vector<lora::Place>& places() const override { return adapter_.places(); }
  std::vector<torch::Tensor> parameters() const override { return adapter_.parameters(); }
  io::StateDict state_dict() const override { return adapter_.state_dict(); }
  model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                              double scale) const override {
    return adapter_.adapted(place, frozen, scale);
  }
  bool attach(model::Clip& clip) const override { return adapter_.attach(clip); }
  lora::AdapterOptions options() const override { return adapter_.options(); }
  std::map<std::string, std::string> settings() const override { return adapter_.settings(); }
  void set_training_options(const lora::AdapterOptions&) override {}

 private:
  const lora::Adapter& adapter_;
};

}  // namespace clip_lora::testing
