#include "peft_config.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::lora {
namespace {

using Json = JsonObject::Json;

// LoraConfig's own defaults.
constexpr std::int64_t kDefaultRank = 8;
constexpr double kDefaultAlpha = 8.0;

constexpr const char* kAllLinear = "all-linear";

/// Whether PEFT takes the value for "not used".
bool is_off(const Json& value) {
  return value.is_null() || value == false || ((value.is_array() || value.is_object()) && value.empty());
}

/// Whether a key that is in use makes something else than y += scaling · B A dropout(x) of attention's
/// projections. Every variant of LoRA in PEFT has a key `use_…` or `…_config`, later ones too, we may hope.
bool is_variant(const std::string& key) {
  static const std::set<std::string> kVariants = {
      "alora_invocation_tokens", "fan_in_fan_out",    "layer_replication",      "lora_bias",
      "modules_to_save",         "target_parameters", "trainable_token_indices"};
  static const std::set<std::string> kHarmless = {"use_rslora",   "loftq_config",   "eva_config",
                                                  "corda_config", "lora_ga_config", "runtime_config"};
  if (kHarmless.contains(key)) return false;
  return kVariants.contains(key) || key.starts_with("use_") || key.ends_with("_config");
}

/// Whether that initialisation also changed the frozen weights.
bool changes_frozen_weights(const std::string& initialisation) {
  static constexpr std::array<const char*, 5> kNames = {"pissa", "olora", "corda", "loftq", "lora_ga"};
  return std::any_of(kNames.begin(), kNames.end(),
                     [&](const char* name) { return initialisation.starts_with(name); });
}

void require_plain_lora(const JsonObject& json) {
  const std::string method = json.string("peft_type");
  if (method != "LORA")
    json.fail("has peft_type '" + method + "', expected LORA (hint: other methods cannot be used)");
  const auto refuse = [&](const std::string& key, const Json& value) {
    json.fail("uses " + key + " (" + io::brief(value) + "), which CLIP-LoRA's adapters cannot do");
  };
  for (const auto& [key, value] : json.json().items()) {
    if (is_variant(key) && !is_off(value)) refuse(key, value);
  }
  if (const Json* bias = json.find("bias"); bias != nullptr && *bias != "none") refuse("bias", *bias);
  const Json* initialisation = json.find("init_lora_weights");
  if (initialisation != nullptr && initialisation->is_string() && changes_frozen_weights(*initialisation)) {
    json.fail("has init_lora_weights " + io::brief(*initialisation) +
              ", which also changed the backbone's weights (hint: PEFT converts it to plain LoRA, see "
              "path_initial_model_for_weight_conversion of save_pretrained)");
  }
}

LoraOptions read_options(const JsonObject& json) {
  LoraOptions options;
  options.rank = json.integer("r", kDefaultRank);
  options.alpha = json.number("lora_alpha", kDefaultAlpha);
  options.rank_stabilised = json.boolean("use_rslora", false);
  options.dropout = json.number("lora_dropout", 0.0);
  if (options.rank < 1) json.fail("has r " + std::to_string(options.rank) + ", expected at least 1");
  if (!(options.alpha > 0.0))
    json.fail("has lora_alpha " + std::to_string(options.alpha) + ", expected a number above 0");
  if (!(options.dropout >= 0.0 && options.dropout < 1.0)) {
    json.fail("has lora_dropout " + std::to_string(options.dropout) + ", expected a number in [0, 1)");
  }
  return options;
}

}  // namespace

PeftConfig::PeftConfig(JsonObject json) : json_(std::move(json)) {
  require_plain_lora(json_);
  options_ = read_options(json_);
  targets_ = read_modules("target_modules");
  excluded_ = read_modules("exclude_modules");
  if (targets_.names.empty() && targets_.pattern.empty()) json_.fail("lacks target_modules");
  read_layers();
  ranks_ = read_pattern<std::int64_t>("rank_pattern", [](const JsonObject& ranks, const std::string& key) {
    const std::int64_t rank = ranks.integer(key);
    if (rank < 1) ranks.fail("has rank " + std::to_string(rank) + " for '" + key + "', expected at least 1");
    return rank;
  });
  alphas_ = read_pattern<double>(
      "alpha_pattern", [](const JsonObject& alphas, const std::string& key) { return alphas.number(key); });
}

std::string PeftConfig::where(const std::string& key) const {
  return json_.source() + " has " + key + ", which";
}

PeftConfig::ModuleSet PeftConfig::read_modules(const std::string& key) const {
  const Json* value = json_.find(key);
  ModuleSet modules;
  if (value == nullptr) return modules;
  if (!value->is_string()) {
    modules.names = json_.strings(key);
  } else if (*value == kAllLinear) {
    modules.pattern.emplace_back(".*", where(key));
  } else {
    modules.pattern.emplace_back(value->get<std::string>(), where(key));
  }
  return modules;
}

void PeftConfig::read_layers() {
  const Json* layers = json_.find("layers_to_transform");
  if (layers == nullptr) return;
  if (!targets_.pattern.empty()) json_.fail("has layers_to_transform, but target_modules is no list");
  for (const Json& layer : layers->is_array() ? *layers : Json::array({*layers})) {
    if (!layer.is_number_integer())
      json_.fail("has layers_to_transform that is neither an integer nor a list of them");
    layers_.push_back(layer.get<std::int64_t>());
  }
  const Json* names = json_.find("layers_pattern");
  if (names == nullptr) return;
  const auto patterns =
      names->is_string() ? std::vector{names->get<std::string>()} : json_.strings("layers_pattern");
  for (const auto& pattern : patterns) {
    if (!pattern.empty())
      layer_names_.emplace_back("(.*\\.)?(" + pattern + ")\\.\\d+\\..*", where("layers_pattern"));
  }
}

template <typename Value, typename Read>
PeftConfig::Pattern<Value> PeftConfig::read_pattern(const std::string& key, const Read& read) const {
  const JsonObject object = json_.object(key);
  Pattern<Value> pattern;
  for (const auto& [name, value] : object.json().items()) {
    pattern.emplace_back(RegularExpression("(.*\\.)?(" + name + ")", where(key + " '" + name + "'")),
                         read(object, name));
  }
  return pattern;
}

bool PeftConfig::ModuleSet::holds_name(const std::string& module) const {
  return std::find(names.begin(), names.end(), module) != names.end();
}

bool PeftConfig::ModuleSet::holds_suffix(const std::string& module) const {
  return std::any_of(names.begin(), names.end(),
                     [&](const auto& name) { return module.ends_with("." + name); });
}

bool PeftConfig::ModuleSet::matches(const std::string& module) const {
  return !pattern.empty() && pattern.front().matches(module);
}

bool PeftConfig::is_in_layers(const std::string& module, std::int64_t layer) const {
  if (layers_.empty()) return true;
  const bool named =
      layer_names_.empty() || std::any_of(layer_names_.begin(), layer_names_.end(),
                                          [&](const auto& name) { return name.matches(module); });
  return named && std::find(layers_.begin(), layers_.end(), layer) != layers_.end();
}

bool PeftConfig::targets(const std::string& module, std::int64_t layer) const {
  if (excluded_.holds_name(module) || excluded_.holds_suffix(module) || excluded_.matches(module))
    return false;
  if (targets_.holds_name(module) || targets_.matches(module)) return true;
  return targets_.holds_suffix(module) && is_in_layers(module, layer);
}

namespace {

/// The value of the first pattern that matches, as PEFT takes it.
template <typename Pattern, typename Value>
Value first_match(const Pattern& pattern, const std::string& module, Value otherwise) {
  for (const auto& [expression, value] : pattern) {
    if (expression.matches(module)) return value;
  }
  return otherwise;
}

}  // namespace

std::int64_t PeftConfig::rank_of(const std::string& module) const {
  return first_match(ranks_, module, options_.rank);
}

double PeftConfig::alpha_of(const std::string& module) const {
  return first_match(alphas_, module, options_.alpha);
}

}  // namespace clip_lora::lora
