#include "clip_lora/io/json_text.hpp"

#include <set>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {
namespace {

using nlohmann::json;

constexpr int kDeepest = 64;  // writing a value into an error message recurses
constexpr std::size_t kLongestReason = 200;

/// Watches the parser: a name twice in one object, or too deep a nest, throws.
class Watch {
 public:
  explicit Watch(const std::string& source) : source_(source) {}

  bool operator()(int depth, json::parse_event_t event, const json& value) {
    using Event = json::parse_event_t;
    if (depth > kDeepest)
      throw CheckpointError(source_ + "its JSON is nested deeper than " + std::to_string(kDeepest));
    if (event == Event::object_start) names_.emplace_back();
    if (event == Event::object_end) names_.pop_back();
    if (event == Event::key && !names_.back().insert(value.get<std::string>()).second) {
      throw CheckpointError(source_ + "'" + value.get<std::string>() + "' is there twice");
    }
    return true;
  }

 private:
  const std::string& source_;
  std::vector<std::set<std::string>> names_;  // of the objects that are open
};

}  // namespace

json parse_json_object(std::string_view text, const std::string& source) {
  json value;
  try {
    Watch watch(source);
    value = json::parse(text, [&](int depth, json::parse_event_t event, json& parsed) {
      return watch(depth, event, parsed);
    });
  } catch (const json::exception& error) {
    // The parser quotes what it has read of a broken string, however long that is.
    throw CheckpointError(source + "it is not JSON: " + std::string(error.what()).substr(0, kLongestReason));
  }
  if (!value.is_object()) {
    throw CheckpointError(source + "it is a JSON " + value.type_name() + ", expected an object");
  }
  return value;
}

std::string brief(const json& value) {
  constexpr std::size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

}  // namespace clip_lora::io
