#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace clip_lora::cli {

/// The options of one command: each is a flag, a JSON key of the same name, and a field that holds its
/// default. Order: defaults < configuration file < flags.
class OptionTable {
 public:
  /// `command` heads the help text, e.g. "clip_lora demo"; `description` follows it.
  OptionTable(const std::string& command, const std::string& description);
  ~OptionTable();

  /// Options added from now on stand under this heading of the help text.
  void group(const std::string& heading) { group_ = heading; }

  void add(const std::string& name, std::string& field, const std::string& help);
  void add(const std::string& name, std::int64_t& field, const std::string& help);
  void add(const std::string& name, double& field, const std::string& help);
  void add(const std::string& name, bool& field, const std::string& help);
  /// An integer, or `word` for nothing; in JSON a number or that word.
  void add(const std::string& name, std::optional<std::int64_t>& field, const std::string& word,
           const std::string& help);
  /// A field that is written as one or more words: `read` takes the words, `write` gives them back. `read`
  /// may throw ConfigError. A `list` takes several words on the command line and an array in JSON.
  void add(const std::string& name, const std::function<void(const std::vector<std::string>&)>& read,
           const std::function<std::vector<std::string>()>& write, bool list, const std::string& help);

  /// A flag that takes one word and may be given several times, so that words after it are arguments; in JSON
  /// an array of strings, or one.
  void add_repeated(const std::string& name, std::vector<std::string>& field, const std::string& help);

  /// Several words of which each may be a number; in JSON an array of strings and integers, or one of them.
  void add_words(const std::string& name, std::vector<std::string>& field, const std::string& help);
  /// Several numbers; in JSON an array, or one.
  void add_numbers(const std::string& name, std::vector<double>& field, const std::string& help);
  /// A JSON key without a flag. `from_json` may throw ConfigError.
  void add_key(const std::string& name, const std::function<void(const nlohmann::json&)>& from_json,
               const std::function<nlohmann::json()>& to_json);
  /// Takes an option out again, flag and key.
  void remove(const std::string& name);

  /// The word without a flag that the command wants, e.g. PATH; no JSON key.
  void add_argument(const std::string& name, std::string& field, const std::string& help);
  /// The words without a flag, at least one, e.g. IMAGES; no JSON key.
  void add_arguments(const std::string& name, std::vector<std::string>& field, const std::string& help);

  /// Reads the command line. False if help or, by `--print_config`, the configuration was asked for and has
  /// been printed. `--config FILE` is read before the flags take effect. Throws ConfigError for unknown flags
  /// and keys (the nearest is offered) and for values of a wrong type.
  bool parse(const std::vector<std::string>& arguments);

  /// Reads a configuration at hand: keys and values as of a file. What was read or given before stays. Throws
  /// ConfigError, whose message begins with `source`.
  void read(const nlohmann::json& config, const std::string& source);

  /// Defaults that depend on other options: `defaults` gives them as a configuration, asked for once command
  /// line and configuration file have been read. They count as not given.
  void set_further_defaults(
      const std::function<nlohmann::json(const std::set<std::string>& given)>& defaults) {
    further_defaults_ = defaults;
  }
  /// Puts them in: after read(); parse() does it itself.
  void apply_further_defaults();

  /// Options without a part in what others ask for: `names` gives them as the fields stand. They are left out
  /// of config() and words() unless they were given.
  void set_without_part(const std::function<std::set<std::string>()>& names) { without_part_ = names; }

  /// The options that the command line or the configuration file names.
  const std::set<std::string>& given() const { return given_; }

  /// Every option by its name, as the fields stand now.
  nlohmann::ordered_json to_json() const;

  /// The same less what has no part: what --print_config prints, and read() gives back.
  nlohmann::ordered_json config() const;

  /// The words of a command line that give these values to a table that stands as `defaults`, its to_json().
  std::vector<std::string> words(const nlohmann::ordered_json& defaults) const;

 private:
  struct Entry {
    std::string name;
    CLI::Option* flag;                                     // nullptr: a key only
    std::function<void(const nlohmann::json&)> from_json;  // throws ConfigError
    std::function<nlohmann::json()> to_json;
    bool repeated = false;  // on a command line once for each of its values
  };

  template <typename T>
  void add_field(CLI::Option* flag, const std::string& name, T& field, const char* type_name,
                 bool (*fits)(const nlohmann::json&));
  template <typename T>
  CLI::Option* add_number(const std::string& name, T& field, const std::string& expected,
                          const std::string& help);
  void read_config(const std::filesystem::path& path);
  void refuse_leftovers() const;
  std::set<std::string> left_out() const;
  std::vector<std::string> names() const;

  std::unique_ptr<CLI::App> app_;
  std::string group_ = "Options";
  std::vector<Entry> entries_;
  std::string config_path_;
  std::set<std::string> given_;
  std::function<nlohmann::json(const std::set<std::string>&)> further_defaults_;
  std::function<std::set<std::string>()> without_part_;
  bool print_config_ = false;
};

/// Throws ConfigError if `value` of `flag` is none of the words that are `allowed`; the nearest is offered.
void require_one_of(const std::string& flag, const std::string& value,
                    const std::vector<std::string>& allowed);

}  // namespace clip_lora::cli
