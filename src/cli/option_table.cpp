#include "clip_lora/cli/option_table.hpp"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::json;

bool is_string(const json& value) { return value.is_string(); }
/// One that fits: a larger unsigned number would turn negative on the way.
bool is_integer(const json& value) {
  if (!value.is_number_unsigned()) return value.is_number_integer();
  return value.get<std::uint64_t>() <= std::uint64_t{std::numeric_limits<std::int64_t>::max()};
}
bool is_number(const json& value) { return value.is_number(); }
bool is_boolean(const json& value) { return value.is_boolean(); }

/// Whether all of `text` is a decimal number that fits into `number`, which then has it.
template <typename T>
bool read_number(const std::string& text, T& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

[[noreturn]] void throw_wrong_word(const std::string& name, const std::string& got,
                                   const std::string& expected) {
  throw ConfigError("--" + name + " '" + got + "': expected " + expected);
}

[[noreturn]] void throw_wrong_type(const std::string& name, const std::string& expected, const json& got) {
  throw ConfigError("key '" + name + "': expected " + expected + ", got " + io::brief(got));
}

}  // namespace

OptionTable::OptionTable(const std::string& command, const std::string& description)
    : app_(std::make_unique<CLI::App>(description, command)) {
  app_->allow_extras();
  app_->set_help_flag("-h,--help", "print this help and exit");
  app_->add_option("--config", config_path_, "JSON file with any of these options as keys; flags win over it")
      ->type_name("FILE");
  app_->add_flag("--print_config", print_config_, "print every option as it stands, as JSON, and exit");
}

OptionTable::~OptionTable() = default;

template <typename T>
void OptionTable::add_field(CLI::Option* flag, const std::string& name, T& field, const char* type_name,
                            bool (*fits)(const json&)) {
  flag->group(group_)->type_name(type_name);
  const auto from_json = [&field, name, type_name, fits](const json& value) {
    if (!fits(value)) throw_wrong_type(name, std::string("a value of type ") + type_name, value);
    field = value.get<T>();
  };
  entries_.push_back({name, flag, from_json, [&field] { return json(field); }});
}

template <typename T>
CLI::Option* OptionTable::add_number(const std::string& name, T& field, const std::string& expected,
                                     const std::string& help) {
  const auto read = [&field, name, expected](const std::vector<std::string>& words) {
    if (!read_number(words.front(), field)) throw_wrong_word(name, words.front(), expected);
    return true;
  };
  return app_->add_option("--" + name, read, help)->default_str(CLI::detail::to_string(field));
}

void OptionTable::add(const std::string& name, std::string& field, const std::string& help) {
  add_field(app_->add_option("--" + name, field, help)->capture_default_str(), name, field, "TEXT",
            is_string);
}

void OptionTable::add(const std::string& name, std::int64_t& field, const std::string& help) {
  add_field(add_number(name, field, "an integer", help), name, field, "INTEGER", is_integer);
}

void OptionTable::add(const std::string& name, double& field, const std::string& help) {
  add_field(add_number(name, field, "a number", help), name, field, "NUMBER", is_number);
}

void OptionTable::add(const std::string& name, bool& field, const std::string& help) {
  const auto check = [name](const std::string& word) {  // "true" where the flag stands alone
    if (word != "true" && word != "false") throw_wrong_word(name, word, "true or false");
    return std::string();
  };
  CLI::Option* flag = app_->add_flag("--" + name, field, help)->group(group_)->check(check);
  const auto from_json = [&field, name](const json& value) {
    if (!is_boolean(value)) throw_wrong_type(name, "true or false", value);
    field = value.get<bool>();
  };
  entries_.push_back({name, flag, from_json, [&field] { return json(field); }});
}

void OptionTable::add(const std::string& name, std::optional<std::int64_t>& field, const std::string& word,
                      const std::string& help) {
  const std::string expected = "an integer or '" + word + "'";
  const auto read = [&field, name, word, expected](const std::vector<std::string>& words) {
    const std::string& text = words.front();
    std::int64_t number = 0;
    const bool integer = read_number(text, number);
    if (!integer && text != word) throw_wrong_word(name, text, expected);
    field = integer ? std::optional(number) : std::nullopt;
    return true;
  };
  CLI::Option* flag = app_->add_option("--" + name, read, help)->group(group_)->type_name("INTEGER|" + word);
  flag->default_str(field ? std::to_string(*field) : word);
  const auto from_json = [&field, name, word, expected](const json& value) {
    if (value == word) {
      field.reset();
    } else if (is_integer(value)) {
      field = value.get<std::int64_t>();
    } else {
      throw_wrong_type(name, expected, value);
    }
  };
  entries_.push_back({name, flag, from_json, [&field, word] { return field ? json(*field) : json(word); }});
}

void OptionTable::add(const std::string& name,
                      const std::function<void(const std::vector<std::string>&)>& read,
                      const std::function<std::vector<std::string>()>& write, bool list,
                      const std::string& help) {
  CLI::Option* flag = app_->add_option(
      "--" + name,
      [read](const std::vector<std::string>& words) {
        read(words);
        return true;
      },
      help);
  flag->group(group_)->type_name("TEXT");
  if (list)
    flag->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();  // up to the next flag
  flag->default_str(CLI::detail::join(write(), " "));
  const auto from_json = [read, name, list](const json& value) {
    if (!list && value.is_string()) return read({value.get<std::string>()});
    if (!list || !value.is_array() || !std::all_of(value.begin(), value.end(), is_string)) {
      throw_wrong_type(name, list ? "an array of strings" : "a string", value);
    }
    read(value.get<std::vector<std::string>>());
  };
  entries_.push_back(
      {name, flag, from_json, [write, list] { return list ? json(write()) : json(write().front()); }});
}

void OptionTable::add_repeated(const std::string& name, std::vector<std::string>& field,
                               const std::string& help) {
  CLI::Option* flag = app_->add_option("--" + name, field, help)->group(group_)->type_name("TEXT");
  flag->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args(false);
  const auto from_json = [&field, name](const json& value) {
    if (value.is_string()) {
      field = {value.get<std::string>()};
    } else if (value.is_array() && std::all_of(value.begin(), value.end(), is_string)) {
      field = value.get<std::vector<std::string>>();
    } else {
      throw_wrong_type(name, "an array of strings", value);
    }
  };
  entries_.push_back({name, flag, from_json, [&field] { return json(field); }, /*repeated=*/true});
}

void OptionTable::add_words(const std::string& name, std::vector<std::string>& field,
                            const std::string& help) {
  CLI::Option* flag = app_->add_option("--" + name, field, help)->group(group_)->type_name("TEXT");
  flag->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();
  flag->default_str(CLI::detail::join(field, " "));
  const auto from_json = [&field, name](const json& value) {
    std::vector<std::string> words;
    for (const json& element : value.is_array() ? value : json::array({value})) {
      if (!element.is_string() && !element.is_number_integer())
        throw_wrong_type(name, "an array of strings or integers", value);
      words.push_back(element.is_string() ? element.get<std::string>() : element.dump());
    }
    field = words;
  };
  entries_.push_back({name, flag, from_json, [&field] { return json(field); }});
}

void OptionTable::add_numbers(const std::string& name, std::vector<double>& field, const std::string& help) {
  CLI::Option* flag = app_->add_option("--" + name, field, help)->group(group_)->type_name("NUMBER");
  flag->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();
  std::vector<std::string> words;
  for (const double number : field) words.push_back(json(number).dump());
  flag->default_str(CLI::detail::join(words, " "));
  const auto from_json = [&field, name](const json& value) {
    const json list = value.is_array() ? value : json::array({value});
    if (!std::all_of(list.begin(), list.end(), [](const json& element) { return element.is_number(); }))
      throw_wrong_type(name, "an array of numbers", value);
    field = list.get<std::vector<double>>();
  };
  entries_.push_back({name, flag, from_json, [&field] { return json(field); }});
}

void OptionTable::add_key(const std::string& name, const std::function<void(const json&)>& from_json,
                          const std::function<json()>& to_json) {
  entries_.push_back({name, nullptr, from_json, to_json});
}

void OptionTable::remove(const std::string& name) {
  const auto entry =
      std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  app_->remove_option(entry->flag);
  entries_.erase(entry);
}

void OptionTable::add_argument(const std::string& name, std::string& field, const std::string& help) {
  app_->add_option(name, field, help)->required()->type_name("");
}

void OptionTable::add_arguments(const std::string& name, std::vector<std::string>& field,
                                const std::string& help) {
  app_->add_option(name, field, help)->required()->type_name("");
}

bool OptionTable::parse(const std::vector<std::string>& arguments) {
  try {
    app_->parse(
        std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 takes them from the back
  } catch (const CLI::CallForHelp& help) {
    app_->exit(help);
    return false;
  } catch (const CLI::ParseError& error) {
    throw ConfigError(error.what() + std::string(" (hint: ") + app_->get_name() + " --help)");
  }
  refuse_leftovers();
  for (const auto& entry : entries_) {
    if (entry.flag != nullptr && entry.flag->count() > 0) given_.insert(entry.name);
  }
  if (!config_path_.empty()) read_config(config_path_);
  apply_further_defaults();
  if (print_config_) std::cout << config().dump(2) << "\n";
  return !print_config_;
}

void OptionTable::refuse_leftovers() const {
  std::vector<std::string> leftovers = app_->remaining();
  std::erase(leftovers, "--");  // after which words are no flags
  if (leftovers.empty()) return;
  const auto flag = std::find_if(leftovers.begin(), leftovers.end(),
                                 [](const auto& word) { return word.starts_with('-'); });
  if (flag == leftovers.end()) throw ConfigError("unexpected argument '" + leftovers.front() + "'");
  std::vector<std::string> known = names();
  known.insert(known.end(), {"config", "print_config", "help"});
  for (auto& name : known) name.insert(0, "--");
  const std::string given = flag->substr(0, flag->find('='));
  throw ConfigError("unknown flag '" + given + "'" + did_you_mean(given, known));
}

void OptionTable::read_config(const std::filesystem::path& path) {
  const std::string source = "configuration file '" + path.string() + "': ";
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored) || !std::ifstream(path))
    throw ConfigError(source + "it is missing or cannot be read");
  json config;
  try {
    config = io::read_json_object(path, source);
  } catch (const CheckpointError& error) {  // what the reader takes every bad JSON for
    throw ConfigError(error.what());
  }
  read(config, source);
}

void OptionTable::read(const json& config, const std::string& source) {
  if (!config.is_object()) throw ConfigError(source + "expected a JSON object, got " + config.type_name());
  for (const auto& item : config.items()) {
    const std::string& key = item.key();
    const auto entry =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == key; });
    if (entry == entries_.end())
      throw ConfigError(source + "unknown key '" + key + "'" + did_you_mean(key, names()));
    if (!given_.insert(key).second) continue;  // the command line wins
    try {
      entry->from_json(item.value());
    } catch (const ConfigError& error) {
      throw ConfigError(source + error.what());
    }
  }
}

void OptionTable::apply_further_defaults() {
  if (!further_defaults_) return;
  const std::set<std::string> given = given_;
  read(further_defaults_(given_), "");
  given_ = given;
}

nlohmann::ordered_json OptionTable::to_json() const {
  nlohmann::ordered_json values;
  for (const auto& entry : entries_) values[entry.name] = entry.to_json();
  return values;
}

std::set<std::string> OptionTable::left_out() const {
  std::set<std::string> names = without_part_ ? without_part_() : std::set<std::string>();
  std::erase_if(names, [&](const std::string& name) { return given_.contains(name); });
  return names;
}

nlohmann::ordered_json OptionTable::config() const {
  const std::set<std::string> idle = left_out();
  nlohmann::ordered_json values;
  for (const auto& entry : entries_) {
    if (!idle.contains(entry.name)) values[entry.name] = entry.to_json();
  }
  return values;
}

std::vector<std::string> OptionTable::words(const nlohmann::ordered_json& defaults) const {
  const auto word = [](const json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  };
  const std::set<std::string> idle = left_out();
  std::vector<std::string> words;
  for (const auto& entry : entries_) {
    if (idle.contains(entry.name)) continue;
    const json value = entry.to_json();
    if (value == json(defaults.at(entry.name))) continue;
    const std::string flag = "--" + entry.name;
    if (value.is_boolean()) {
      words.push_back(value.get<bool>() ? flag : flag + "=false");
      continue;
    }
    if (!value.is_array()) {
      words.insert(words.end(), {flag, word(value)});
      continue;
    }
    if (!entry.repeated) words.push_back(flag);
    for (const auto& element : value) {
      if (entry.repeated) words.push_back(flag);
      words.push_back(word(element));
    }
  }
  return words;
}

std::vector<std::string> OptionTable::names() const {
  std::vector<std::string> names;
  for (const auto& entry : entries_) names.push_back(entry.name);
  return names;
}

void require_one_of(const std::string& flag, const std::string& value,
                    const std::vector<std::string>& allowed) {
  if (std::find(allowed.begin(), allowed.end(), value) != allowed.end()) return;
  throw ConfigError(flag + (value.empty() ? " is missing" : " '" + value + "'") + ": expected " +
                    join_capped(allowed) + did_you_mean(value, allowed));
}

}  // namespace clip_lora::cli
