#include "clip_lora/lora/method.hpp"

#include <utility>

#include "block_adapter.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/lora/lora_adapter.hpp"
#include "clip_lora/lora/summary.hpp"
#include "method_list.hpp"

namespace clip_lora::lora {
namespace {

Method lora_method() {
  return {.name = "lora",
          .summary = "low-rank updates of attention's projections (CLIP-LoRA)",
          .flags = {"encoder", "position", "params", "r", "alpha", "dropout_rate"},
          .make = [](const model::Clip& clip, const AdapterOptions& options) -> std::shared_ptr<Adapter> {
            return std::make_shared<LoraAdapter>(clip, options.lora);
          },
          .settings = [](const AdapterOptions& options) { return settings_of(summarise(options.lora)); }};
}

}  // namespace

const std::vector<Method>& methods() {
  static const std::vector<Method> all = {lora_method(), r_adapter_method(), lora_xs_method(),
                                          zero_shot_method()};
  return all;
}

const Method& find_method(const std::string& name) {
  std::vector<std::string> names;
  for (const Method& method : methods()) {
    if (method.name == name) return method;
    names.push_back(method.name);
  }
  throw ConfigError("--method '" + name + "': expected one of " + join_capped(names) +
                    did_you_mean(name, names));
}

std::shared_ptr<Adapter> make_adapter(const model::Clip& clip, const AdapterOptions& options) {
  return find_method(options.method).make(clip, options);
}

Method method_of(const std::string& name, const std::string& summary, const nlohmann::ordered_json& defaults,
                 const BlockMethod& functions) {
  std::vector<std::string> flags = {"encoder", "position"};
  for (const auto* more : {&functions.flags, &functions.training_flags})
    flags.insert(flags.end(), more->begin(), more->end());
  return {.name = name,
          .summary = summary,
          .defaults = defaults,
          .flags = flags,
          .make = [name, functions](const model::Clip& clip,
                                    const AdapterOptions& options) -> std::shared_ptr<Adapter> {
            return std::make_shared<BlockAdapter>(name, functions, clip, options);
          },
          .settings =
              [functions](const AdapterOptions& options) { return settings_of(options, functions.flags); }};
}

}  // namespace clip_lora::lora
