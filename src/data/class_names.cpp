#include "clip_lora/data/class_names.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

using OrderedJson = nlohmann::ordered_json;

constexpr std::size_t kLongestReason = 200;  // the JSON parser quotes what it has read, however long that is

[[noreturn]] void fail(const std::filesystem::path& file, const std::string& reason) {
  throw ConfigError("file of class names '" + file.string() + "': " + reason);
}

/// Reads one file's text, as JSON or as lines.
class Reader {
 public:
  explicit Reader(const std::filesystem::path& file) : file_(file) {}

  ClassNames from_json(const std::string& text) {
    const OrderedJson json = parse(text);
    if (json.is_array()) {
      for (std::size_t i = 0; i < json.size(); ++i) add(string_in(json[i], "entry " + std::to_string(i)));
    } else if (json.is_object()) {
      for (const auto& [folder, name] : json.items()) add(folder, string_in(name, "'" + folder + "'"));
    } else {
      fail(file_, std::string("it is a JSON ") + json.type_name() + ", expected an array or an object");
    }
    return std::move(result_);
  }

  ClassNames from_lines(std::string_view text) {
    const std::vector<Line> lines = split_lines(text);
    const auto pairs = std::count_if(lines.begin(), lines.end(), [](const Line& line) {
      return colon(line.text) != std::string_view::npos;
    });
    if (pairs != 0 && static_cast<std::size_t>(pairs) != lines.size()) refuse_mixed(lines);
    for (const Line& line : lines) {
      where_ = "line " + std::to_string(line.number) + ": ";
      const std::size_t at = colon(line.text);
      if (at == std::string_view::npos) {
        add(std::string(line.text));
      } else {
        add(std::string(trimmed(line.text.substr(0, at))), std::string(trimmed(line.text.substr(at + 1))));
      }
    }
    return std::move(result_);
  }

 private:
  struct Line {
    std::size_t number;
    std::string_view text;  // trimmed
  };

  /// Where the colon of `folder: name` is, which a blank or the line's end follows.
  static std::size_t colon(std::string_view line) {
    for (std::size_t at = line.find(':'); at != std::string_view::npos; at = line.find(':', at + 1)) {
      if (at + 1 == line.size() || line[at + 1] == ' ' || line[at + 1] == '\t') return at;
    }
    return std::string_view::npos;
  }

  static std::vector<Line> split_lines(std::string_view text) {
    std::vector<Line> lines;
    for (std::size_t number = 1; !text.empty(); ++number) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      const std::string_view line = trimmed(text.substr(0, end));
      if (!line.empty()) lines.push_back({number, line});
      text.remove_prefix(std::min(end + 1, text.size()));
    }
    return lines;
  }

  [[noreturn]] void refuse_mixed(const std::vector<Line>& lines) const {
    const auto other = std::find_if(lines.begin(), lines.end(), [](const Line& line) {
      return colon(line.text) == std::string_view::npos;
    });
    fail(file_,
         "line " + std::to_string(other->number) + " is '" + std::string(other->text) +
             "', expected 'folder: name' as in the other lines (hint: names with a colon in them can stand "
             "in a JSON array)");
  }

  OrderedJson parse(const std::string& text) const {
    std::set<std::string> folders;
    const auto watch = [&](int depth, OrderedJson::parse_event_t event, const OrderedJson& value) {
      const bool opens = event == OrderedJson::parse_event_t::object_start ||
                         event == OrderedJson::parse_event_t::array_start;
      if (opens && depth > 0) fail(file_, "a list or an object is nested in it, expected names");
      if (event == OrderedJson::parse_event_t::key && !folders.insert(value.get<std::string>()).second) {
        fail(file_, "'" + value.get<std::string>() + "' is named twice");
      }
      return true;
    };
    try {
      return OrderedJson::parse(text, watch);
    } catch (const OrderedJson::exception& error) {
      fail(file_, "it is not valid JSON: " + std::string(error.what()).substr(0, kLongestReason));
    }
  }

  std::string string_in(const OrderedJson& value, const std::string& where) {
    where_ = where + ": ";
    if (!value.is_string()) {
      fail(file_, where_ + "a name is a JSON " + value.type_name() + ", expected a string");
    }
    return value.get<std::string>();
  }

  void add(std::string name) {
    name = trimmed(name);
    if (name.empty()) fail(file_, where_ + "a name is empty");
    result_.names.push_back(std::move(name));
  }

  void add(const std::string& folder, std::string name) {
    if (folder.empty()) fail(file_, where_ + "nothing is named '" + name + "', expected 'folder: name'");
    add(std::move(name));
    if (!result_.renamed.emplace(folder, result_.names.back()).second) {
      fail(file_, where_ + "'" + folder + "' is named twice");
    }
  }

  std::filesystem::path file_;
  std::string where_;  // the line or the entry at hand
  ClassNames result_;
};

bool is_json(const std::filesystem::path& file, std::string_view text) {
  const std::string_view begin = trimmed(text).substr(0, 1);
  return begin == "[" || begin == "{" || lower_case(file.extension().string()) == ".json";
}

}  // namespace

ClassNames read_class_names(const std::filesystem::path& file) {
  const auto text = read_text_file(file);
  if (!text) fail(file, "it is missing or cannot be read");
  if (const auto line = line_without_utf8(*text)) {
    fail(file, "line " + std::to_string(*line) + " is not valid UTF-8");
  }
  Reader reader(file);
  ClassNames names = is_json(file, *text) ? reader.from_json(*text) : reader.from_lines(*text);
  if (names.names.empty()) fail(file, "it names no class");
  return names;
}

}  // namespace clip_lora::data
