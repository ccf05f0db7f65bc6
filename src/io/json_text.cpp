#include "clip_lora/io/json_text.hpp"

#include <set>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/mapped_file.hpp"

namespace clip_lora::io {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr int kDeepestJson = 64;  // writing a value into an error message recurses
constexpr std::size_t kLongestReason = 200;
constexpr std::size_t kLargestFile = 16 << 20;

/// Watches the parser: a name twice in one object, or too deep a nest, throws.
template <typename Json>
class Watch {
 public:
  explicit Watch(const std::string& source) : source_(source) {}

  bool operator()(int depth, typename Json::parse_event_t event, const Json& value) {
    using Event = typename Json::parse_event_t;
    if (depth > kDeepestJson)
      throw CheckpointError(source_ + "its JSON is nested deeper than " + std::to_string(kDeepestJson));
    if (event == Event::object_start) names_.emplace_back();
    if (event == Event::object_end) names_.pop_back();
    if (event == Event::key && !names_.back().insert(value.template get<std::string>()).second) {
      throw CheckpointError(source_ + "'" + value.template get<std::string>() + "' is there twice");
    }
    return true;
  }

 private:
  const std::string& source_;
  std::vector<std::set<std::string>> names_;  // of the objects that are open
};

}  // namespace

template <typename Json>
Json parse_json_object(std::string_view text, const std::string& source) {
  Json value;
  try {
    Watch<Json> watch(source);
    value = Json::parse(text, [&](int depth, typename Json::parse_event_t event, Json& parsed) {
      return watch(depth, event, parsed);
    });
  } catch (const typename Json::exception& error) {
    // The parser quotes what it has read of a broken string, however long that is.
    throw CheckpointError(source + "it is not JSON: " + std::string(error.what()).substr(0, kLongestReason));
  }
  if (!value.is_object()) {
    throw CheckpointError(source + "it is a JSON " + value.type_name() + ", expected an object");
  }
  return value;
}

template <typename Json>
Json read_json_object(const std::filesystem::path& path, const std::string& source) {
  const MappedFile file(path);
  if (file.size() > kLargestFile) {
    throw CheckpointError(source + "it has " + std::to_string(file.size()) +
                          " bytes, expected a JSON document of at most " + std::to_string(kLargestFile));
  }
  return parse_json_object<Json>({file.bytes(), file.size()}, source);
}

template <typename Json>
std::string brief(const Json& value) {
  constexpr std::size_t kLongest = 80;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

std::string json_text(const ordered_json& json, int indent) {
  return json.dump(indent, ' ', /*ensure_ascii=*/false, ordered_json::error_handler_t::replace);
}

template json parse_json_object<json>(std::string_view, const std::string&);
template ordered_json parse_json_object<ordered_json>(std::string_view, const std::string&);
template json read_json_object<json>(const std::filesystem::path&, const std::string&);
template ordered_json read_json_object<ordered_json>(const std::filesystem::path&, const std::string&);
template std::string brief<json>(const json&);
template std::string brief<ordered_json>(const ordered_json&);

}  // namespace clip_lora::io
