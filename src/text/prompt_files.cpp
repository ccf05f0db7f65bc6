#include <algorithm>
#include <cctype>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/prompts.hpp"
#include "embedded.hpp"
#include "unicode.hpp"

namespace clip_lora::text {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
constexpr std::string_view kSpaces = " \t\r\n";
constexpr std::size_t kLongestQuote = 200;  // bytes of a file's text in a message

/// A file's text without a byte order mark, and how its errors begin.
struct PromptFile {
  std::string text;
  std::string source;  ///< "prompts 'x.txt'"
  bool is_json = false;
};

std::string_view trimmed(std::string_view text) {
  const auto begin = text.find_first_not_of(kSpaces);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpaces) - begin + 1);
}

/// Whether text is JSON where the file's name does not say so. A template may begin with {} or with a
/// bracket, but not with one before a quotation mark.
bool looks_like_json(std::string_view text) {
  text = trimmed(text);
  if (!text.starts_with('{') && !text.starts_with('[')) return false;
  return trimmed(text.substr(1)).starts_with('"');
}

bool is_named_json(const fs::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == ".json";
}

std::string on_line(std::string_view text, std::size_t position) {
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(position), '\n');
  return "line " + std::to_string(line);
}

PromptFile read_prompt_file(const fs::path& file) {
  PromptFile read;
  read.source = "prompts '" + file.string() + "'";
  std::ifstream stream(file, std::ios::binary);
  if (!stream || fs::is_directory(file)) {
    throw ConfigError(read.source +
                      ": cannot be read (expected a file of prompt templates, one per line or a JSON array)");
  }
  read.text.assign(std::istreambuf_iterator<char>(stream), {});
  const std::size_t valid = valid_utf8_prefix(read.text);
  if (valid < read.text.size()) {
    throw ConfigError(read.source + ", " + on_line(read.text, valid) +
                      ": expected UTF-8, got bytes that are not (hint: save the file as UTF-8)");
  }
  if (read.text.starts_with(kByteOrderMark)) read.text.erase(0, kByteOrderMark.size());
  read.is_json = is_named_json(file) || looks_like_json(read.text);
  return read;
}

json parse_json(const PromptFile& file) {
  std::vector<std::set<std::string>> names;  // of the objects that are open
  const auto watch = [&](int, json::parse_event_t event, const json& value) {
    if (event == json::parse_event_t::object_start) names.emplace_back();
    if (event == json::parse_event_t::object_end) names.pop_back();
    if (event == json::parse_event_t::key && !names.back().insert(value.get<std::string>()).second) {
      throw ConfigError(file.source + ": '" + value.get<std::string>() + "' is there twice");
    }
    return true;
  };
  try {
    return json::parse(file.text, watch);
  } catch (const json::exception& error) {
    // The parser quotes what it has read of a broken string, however long that is.
    throw ConfigError(file.source +
                      ": it is not JSON: " + std::string(error.what()).substr(0, kLongestQuote));
  }
}

/// `where` names the file and the place in it.
void require_placeholder(const std::string& prompt_template, const std::string& where) {
  if (prompt_template.find("{}") != std::string::npos) return;
  throw ConfigError(where + ": expected a prompt template with a {} where the class name goes, got '" +
                    prompt_template.substr(0, kLongestQuote) + "' (hint: the usual one is '" +
                    std::string(kDefaultTemplate) + "')");
}

/// Strings that are not blank out of a JSON array that is not empty.
std::vector<std::string> strings_of(const json& array, const std::string& where) {
  if (!array.is_array()) {
    throw ConfigError(where + ": expected an array of strings, got " + array.type_name());
  }
  if (array.empty()) throw ConfigError(where + ": expected at least one prompt, got an empty array");
  std::vector<std::string> strings;
  for (const auto& entry : array) {
    const std::string place = where + ", entry " + std::to_string(strings.size() + 1);
    if (!entry.is_string()) throw ConfigError(place + ": expected a string, got " + entry.type_name());
    strings.push_back(entry.get<std::string>());
    if (trimmed(strings.back()).empty()) throw ConfigError(place + ": expected a prompt, got a blank string");
  }
  return strings;
}

std::vector<std::string> templates_of_json(const json& value, const std::string& source) {
  if (value.is_object()) {
    throw ConfigError(source +
                      ": expected a JSON array of prompt templates, got an object (hint: descriptions per " +
                      "class are for --zero_shot_templates)");
  }
  auto templates = strings_of(value, source);
  for (std::size_t i = 0; i < templates.size(); ++i) {
    require_placeholder(templates[i], source + ", entry " + std::to_string(i + 1));
  }
  return templates;
}

std::vector<std::string> templates_of_lines(const PromptFile& file) {
  std::vector<std::string> templates;
  std::size_t number = 0;
  for (const auto line : lines_of(file.text)) {
    ++number;
    const std::string prompt_template(trimmed(line));
    if (prompt_template.empty()) continue;
    require_placeholder(prompt_template, file.source + ", line " + std::to_string(number));
    templates.push_back(prompt_template);
  }
  if (templates.empty()) throw ConfigError(file.source + ": expected a prompt template per line, got none");
  return templates;
}

/// What class names are compared by: lower case, `_` as a space.
std::string folded(std::string_view name) {
  std::string result(name);
  if (valid_utf8_prefix(name) == name.size()) result = encode_utf8(to_lower(decode_utf8(name)));
  std::replace(result.begin(), result.end(), '_', ' ');
  return result;
}

/// {class name: [description, …]}, found by names as they are spelled, or else folded.
class Descriptions {
 public:
  Descriptions(json object, std::string source) : object_(std::move(object)), source_(std::move(source)) {
    for (const auto& entry : object_.items()) keys_[folded(entry.key())].push_back(entry.key());
  }

  ClassPrompts of(const std::vector<std::string>& class_names) const {
    require_all(class_names);
    ClassPrompts prompts;
    for (const auto& name : class_names) {
      const std::string key = key_of(name);
      prompts.push_back(strings_of(object_.at(key), source_ + ", '" + key + "'"));
    }
    return prompts;
  }

 private:
  void require_all(const std::vector<std::string>& class_names) const {
    std::vector<std::string> missing;
    for (const auto& name : class_names) {
      if (!keys_.contains(folded(name))) missing.push_back(name);
    }
    if (missing.empty()) return;
    throw ConfigError(source_ + ": has no descriptions of " + std::to_string(missing.size()) + " of " +
                      std::to_string(class_names.size()) + " classes: " + join_capped(missing));
  }

  std::string key_of(const std::string& name) const {
    if (object_.contains(name)) return name;
    const auto& keys = keys_.at(folded(name));
    if (keys.size() == 1) return keys.front();
    throw ConfigError(source_ + ": expected one entry for the class '" + name + "', got " +
                      join_capped(keys));
  }

  json object_;
  std::string source_;
  std::map<std::string, std::vector<std::string>> keys_;  // by the folded name
};

}  // namespace

std::vector<std::string> read_templates(const fs::path& file) {
  const PromptFile read = read_prompt_file(file);
  return read.is_json ? templates_of_json(parse_json(read), read.source) : templates_of_lines(read);
}

ClassPrompts read_class_prompts(const fs::path& file, const std::vector<std::string>& class_names) {
  const PromptFile read = read_prompt_file(file);
  if (!read.is_json) return class_prompts(class_names, templates_of_lines(read));
  json value = parse_json(read);
  if (value.is_object()) return Descriptions(std::move(value), read.source).of(class_names);
  return class_prompts(class_names, templates_of_json(value, read.source));
}

}  // namespace clip_lora::text
