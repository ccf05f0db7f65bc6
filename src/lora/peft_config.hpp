#pragma once

#include <string>
#include <utility>
#include <vector>

#include "clip_lora/lora/options.hpp"
#include "json_object.hpp"
#include "regular_expression.hpp"

namespace clip_lora::lora {

/// PEFT's adapter_config.json, as far as it concerns LoRA of attention; its rules are those of PEFT 0.21.
/// Source: https://huggingface.co/docs/peft/package_reference/lora, LoraConfig.
class PeftConfig {
 public:
  /// Throws CheckpointError for another method than plain LoRA, naming the key that says so, and for values
  /// of wrong types. Keys that change nothing about the result are ignored.
  explicit PeftConfig(JsonObject json);

  /// Rank, alpha, scaling and dropout where no pattern says otherwise.
  const LoraOptions& options() const { return options_; }

  // `module`: a linear layer's name in the model, e.g. "text_model.encoder.layers.0.self_attn.q_proj".
  /// Whether it is adapted. `layer`: the number in its name.
  bool targets(const std::string& module, std::int64_t layer) const;
  std::int64_t rank_of(const std::string& module) const;
  double alpha_of(const std::string& module) const;

 private:
  /// A list of names, or one regular expression: PEFT's target_modules and exclude_modules.
  struct ModuleSet {
    std::vector<std::string> names;
    std::vector<RegularExpression> pattern;  ///< none or one

    bool holds_name(const std::string& module) const;    ///< it is itself in the list
    bool holds_suffix(const std::string& module) const;  ///< it ends in ".name" for a name in the list
    bool matches(const std::string& module) const;       ///< it matches the regular expression
  };
  template <typename Value>
  using Pattern = std::vector<std::pair<RegularExpression, Value>>;

  ModuleSet read_modules(const std::string& key) const;
  void read_layers();
  template <typename Value, typename Read>
  Pattern<Value> read_pattern(const std::string& key, const Read& read) const;
  std::string where(const std::string& key) const;
  bool is_in_layers(const std::string& module, std::int64_t layer) const;

  JsonObject json_;
  LoraOptions options_;
  ModuleSet targets_;
  ModuleSet excluded_;
  std::vector<std::int64_t> layers_;            ///< layers_to_transform; empty for every layer
  std::vector<RegularExpression> layer_names_;  ///< of layers_pattern; empty for every name
  Pattern<std::int64_t> ranks_;
  Pattern<double> alphas_;
};

}  // namespace clip_lora::lora
