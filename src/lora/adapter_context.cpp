#include "adapter_context.hpp"

namespace clip_lora::lora {
namespace {

constexpr std::int64_t kVersion = 1;

}  // namespace

nlohmann::ordered_json context_json(const AdapterContext& context) {
  nlohmann::ordered_json json;
  json["version"] = kVersion;
  json["backbone"] = context.backbone;
  json["backbone_fingerprint"] = context.backbone_fingerprint;
  json["dataset"] = context.dataset;
  json["class_names"] = context.class_names;
  json["templates"] = context.templates;
  json["preprocessing"] = context.preprocessing;
  if (context.scale != 1.0) json["eval_scale"] = context.scale;
  return json;
}

AdapterContext read_context(const JsonObject& object) {
  const std::int64_t version = object.integer("version");
  if (version != kVersion) {
    object.fail("has version " + std::to_string(version) + ", expected " + std::to_string(kVersion) +
                " (hint: a later clip_lora wrote it)");
  }
  AdapterContext context;
  context.backbone = object.string("backbone");
  context.backbone_fingerprint = object.string("backbone_fingerprint");
  context.dataset = object.string("dataset");
  context.class_names = object.strings("class_names");
  context.templates = object.strings("templates");
  context.scale = object.number("eval_scale", 1.0);
  if (const auto* preprocessing = object.find("preprocessing")) {
    if (!preprocessing->is_object()) object.fail("has a preprocessing that is no object");
    context.preprocessing = *preprocessing;
  }
  return context;
}

}  // namespace clip_lora::lora
