#include "json_fields.hpp"

#include <algorithm>
#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::model {
namespace {

using nlohmann::json;

bool switches_off(const json& value) {
  if (value.is_boolean()) return !value.get<bool>();
  if (value.is_number()) return value.get<double>() == 0.0;
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value.empty();  // null, {} and []
}

}  // namespace

JsonFields::JsonFields(const json& object, std::string document, std::string path)
    : object_(&object), document_(std::move(document)), path_(std::move(path)) {
  if (object.is_object()) return;
  const std::string where = path_.empty() ? document_ : document_ + ": " + path_.substr(0, path_.size() - 1);
  throw CheckpointError(where + " is " + io::brief(object) + ", expected a JSON object");
}

const json* JsonFields::find(const std::string& key) const {
  const auto found = object_->find(key);
  return found == object_->end() || found->is_null() ? nullptr : &*found;
}

void JsonFields::fail(const std::string& key, const std::string& expected) const {
  const json* value = find(key);
  throw CheckpointError(document_ + ": " + path_ + key + " is " +
                        (value != nullptr ? io::brief(*value) : "missing") + ", expected " + expected);
}

std::optional<std::int64_t> JsonFields::integer(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  // Unsigned numbers beyond int64 would wrap around.
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() && value->get<std::uint64_t>() > INT64_MAX)) {
    fail(key, "an integer");
  }
  return value->get<std::int64_t>();
}

std::optional<double> JsonFields::number(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>())) fail(key, "a number");
  return value->get<double>();
}

std::optional<bool> JsonFields::boolean(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail(key, "true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonFields::text(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail(key, "a string");
  return value->get<std::string>();
}

JsonFields JsonFields::object(const std::string& key) const {
  static const json kEmpty = json::object();
  const json* value = find(key);
  return {value != nullptr ? *value : kEmpty, document_, path_ + key + "."};
}

std::optional<std::int64_t> JsonFields::square_side(const std::string& key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  json side = *value;
  if (value->is_array() && value->size() == 2 && (*value)[0] == (*value)[1]) side = (*value)[0];
  if (value->is_object() && value->contains("height") &&
      value->value("height", json()) == value->value("width", json())) {
    side = value->at("height");
  }
  if (!side.is_number_integer() || side.get<std::int64_t>() < 1 || side.get<std::int64_t>() > 1 << 16) {
    fail(key, "the side of a square in pixels");
  }
  return side.get<std::int64_t>();
}

void JsonFields::require_as_in_weights(const std::string& key, std::optional<std::int64_t> value,
                                       std::int64_t in_weights) const {
  if (value && *value != in_weights)
    fail(key, std::to_string(in_weights) + ", which is what the weights' shapes say");
}

void JsonFields::require_only(std::initializer_list<const char*> known) const {
  for (const auto& [key, value] : object_->items()) {
    if (std::find(known.begin(), known.end(), key) != known.end() || switches_off(value)) continue;
    fail(key, "nothing (hint: this is no part of CLIP's own two transformers)");
  }
}

}  // namespace clip_lora::model
