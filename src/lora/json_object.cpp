#include "json_object.hpp"

#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::lora {

JsonObject::JsonObject(Json json, std::string source) : json_(std::move(json)), source_(std::move(source)) {}

JsonObject JsonObject::parse(const std::string& text, const std::string& source) {
  return {io::parse_json_object<Json>(text, source + ": "), source};
}

JsonObject JsonObject::read(const std::filesystem::path& path, const std::string& source) {
  return {io::read_json_object<Json>(path, source + ": "), source};
}

void JsonObject::fail(const std::string& what) const { throw CheckpointError(source_ + " " + what); }

void JsonObject::wrong_type(const std::string& key, const Json& value, const char* expected) const {
  fail("has " + key + " " + io::brief(value) + ", expected " + expected);
}

const JsonObject::Json* JsonObject::find(const std::string& key) const {
  const auto found = json_.find(key);
  return found == json_.end() || found->is_null() ? nullptr : &*found;
}

const JsonObject::Json& JsonObject::require(const std::string& key, const char* expected) const {
  const Json* value = find(key);
  if (value == nullptr) fail("lacks " + key + ", expected " + expected);
  return *value;
}

template <typename T>
T JsonObject::get(const std::string& key, const std::optional<T>& missing,
                  bool (Json::*is_type)() const noexcept, const char* expected) const {
  if (missing && find(key) == nullptr) return *missing;
  const Json& value = require(key, expected);
  if (!(value.*is_type)()) wrong_type(key, value, expected);
  return value.get<T>();
}

std::int64_t JsonObject::integer(const std::string& key, std::optional<std::int64_t> missing) const {
  return get(key, missing, &Json::is_number_integer, "an integer");
}

double JsonObject::number(const std::string& key, std::optional<double> missing) const {
  return get(key, missing, &Json::is_number, "a number");
}

bool JsonObject::boolean(const std::string& key, std::optional<bool> missing) const {
  return get(key, missing, &Json::is_boolean, "true or false");
}

std::string JsonObject::string(const std::string& key) const {
  return get<std::string>(key, std::nullopt, &Json::is_string, "a string");
}

std::vector<std::string> JsonObject::strings(const std::string& key) const {
  const Json& value = require(key, "a list of strings");
  std::vector<std::string> strings;
  if (!value.is_array()) wrong_type(key, value, "a list of strings");
  for (const Json& entry : value) {
    if (!entry.is_string()) wrong_type("an entry of " + key, entry, "a string");
    strings.push_back(entry.get<std::string>());
  }
  return strings;
}

JsonObject JsonObject::object(const std::string& key) const {
  const Json* value = find(key);
  if (value != nullptr && !value->is_object()) wrong_type(key, *value, "an object");
  return {value == nullptr ? Json::object() : *value, source_ + ": " + key};
}

}  // namespace clip_lora::lora
