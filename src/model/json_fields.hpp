#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace clip_lora::model {

/// The fields of a JSON object in a checkpoint's document. A field that is null is one that is not there.
/// Every complaint is a CheckpointError that names the document, the field, its value and what was expected.
class JsonFields {
 public:
  /// `document` names it in errors, e.g. "checkpoint 'x': config.json". The JSON must outlive this.
  JsonFields(const nlohmann::json& object, std::string document, std::string path = "");

  bool has(const std::string& key) const { return find(key) != nullptr; }
  std::optional<std::int64_t> integer(const std::string& key) const;
  std::optional<double> number(const std::string& key) const;  ///< finite
  std::optional<bool> boolean(const std::string& key) const;
  std::optional<std::string> text(const std::string& key) const;
  /// An empty object if it is not there.
  JsonFields object(const std::string& key) const;
  /// The side of a square: 224, [224, 224] or {"height": 224, "width": 224}. At least 1.
  std::optional<std::int64_t> square_side(const std::string& key) const;

  /// Fails if the field is there and is not `in_weights`.
  void require_as_in_weights(const std::string& key, std::optional<std::int64_t> value,
                             std::int64_t in_weights) const;
  /// Fails for every field that is not named here, unless its value switches something off: null, false, 0,
  /// "", {}, [].
  void require_only(std::initializer_list<const char*> known) const;

  /// The field's value, or null.
  const nlohmann::json* find(const std::string& key) const;
  [[noreturn]] void fail(const std::string& key, const std::string& expected) const;

 private:
  const nlohmann::json* object_;
  std::string document_;
  std::string path_;  ///< "vision_config." or ""
};

}  // namespace clip_lora::model
