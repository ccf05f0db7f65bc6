#include "json_object.hpp"

#include <fstream>
#include <iterator>
#include <utility>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::lora {
namespace {

namespace fs = std::filesystem;

constexpr int kDeepestNesting = 32;  // copies and comparisons of JSON are recursive
constexpr std::uintmax_t kLargestFile = 16 << 20;
constexpr std::size_t kLongestQuote = 60;

std::string brief(const nlohmann::ordered_json& value) {
  std::string text = json_text(value);
  if (text.size() > kLongestQuote) text = text.substr(0, kLongestQuote) + "…";
  return text;
}

}  // namespace

JsonObject::JsonObject(Json json, std::string source) : json_(std::move(json)), source_(std::move(source)) {}

JsonObject JsonObject::parse(const std::string& text, const std::string& source) {
  const auto refuse_deep_nesting = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kDeepestNesting) throw CheckpointError(source + " is nested too deeply");
    return true;
  };
  try {
    JsonObject object(Json::parse(text, refuse_deep_nesting), source);
    if (!object.json_.is_object()) {
      throw CheckpointError(source + " is a JSON " + object.json_.type_name() + ", expected an object");
    }
    return object;
  } catch (const Json::exception& error) {
    throw CheckpointError(source + " is not JSON: " + error.what());
  }
}

JsonObject JsonObject::read(const fs::path& path, const std::string& source) {
  std::error_code error;
  const std::uintmax_t size = fs::is_regular_file(path, error) ? fs::file_size(path, error) : 0;
  std::ifstream file(path, std::ios::binary);
  if (error || !fs::is_regular_file(path, error) || !file)
    throw CheckpointError(source + " is missing or cannot be read");
  if (size > kLargestFile) {
    throw CheckpointError(source + " has " + std::to_string(size) + " bytes, expected at most " +
                          std::to_string(kLargestFile));
  }
  return parse({std::istreambuf_iterator<char>(file), {}}, source);
}

void JsonObject::fail(const std::string& what) const { throw CheckpointError(source_ + " " + what); }

void JsonObject::wrong_type(const std::string& key, const Json& value, const char* expected) const {
  fail("has " + key + " " + brief(value) + ", expected " + expected);
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

std::string json_text(const nlohmann::ordered_json& json, int indent) {
  return json.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace clip_lora::lora
