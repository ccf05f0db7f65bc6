#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace clip_lora::lora {

/// A JSON object out of a file, which may be anything: every access checks the type. Order as in the file.
class JsonObject {
 public:
  using Json = nlohmann::ordered_json;

  /// `source` begins the CheckpointErrors, e.g. "adapter 'x': adapter_config.json". Refused is what
  /// io::parse_json_object refuses.
  static JsonObject parse(const std::string& text, const std::string& source);
  static JsonObject read(const std::filesystem::path& path, const std::string& source);

  [[noreturn]] void fail(const std::string& what) const;
  const std::string& source() const { return source_; }

  /// The value of `key`, or nothing if it is missing or null.
  const Json* find(const std::string& key) const;
  /// The whole object.
  const Json& json() const { return json_; }

  // The value of `key`, of that type; without it `missing` if given, else a CheckpointError.
  std::int64_t integer(const std::string& key, std::optional<std::int64_t> missing = std::nullopt) const;
  double number(const std::string& key, std::optional<double> missing = std::nullopt) const;
  bool boolean(const std::string& key, std::optional<bool> missing = std::nullopt) const;
  std::string string(const std::string& key) const;
  std::vector<std::string> strings(const std::string& key) const;
  /// Empty if it is missing or null.
  JsonObject object(const std::string& key) const;

 private:
  JsonObject(Json json, std::string source);
  template <typename T>
  T get(const std::string& key, const std::optional<T>& missing, bool (Json::*is_type)() const noexcept,
        const char* expected) const;
  const Json& require(const std::string& key, const char* expected) const;
  [[noreturn]] void wrong_type(const std::string& key, const Json& value, const char* expected) const;

  Json json_;
  std::string source_;
};

}  // namespace clip_lora::lora
