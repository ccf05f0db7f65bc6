#include "command_line.hpp"

#include <nlohmann/json.hpp>

#include "clip_lora/cli/option_table.hpp"

namespace clip_lora::cli {

std::string shell_quoted(const std::string& word) {
  constexpr const char* kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@%+=:,./-";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char character : word) quoted += character == '\'' ? "'\\''" : std::string(1, character);
  return quoted + "'";
}

nlohmann::ordered_json settings_of(RunOptions options) {
  OptionTable table("", "");
  bind(table, options);
  return table.config();
}

const nlohmann::ordered_json& default_settings() {
  static const nlohmann::ordered_json settings = [] {
    RunOptions untouched;
    OptionTable table("", "");
    bind(table, untouched);
    return table.to_json();
  }();
  return settings;
}

std::string command_line(RunOptions options) {
  const RunOptions plain;
  RunOptions untouched;
  untouched.adapter.method = options.adapter.method;
  untouched.data.protocol = options.data.protocol;
  OptionTable defaults("", "");
  bind(defaults, untouched);
  defaults.apply_further_defaults();  // those of a run of this method and protocol
  untouched.adapter.method = plain.adapter.method;
  untouched.data.protocol = plain.data.protocol;
  OptionTable table("", "");
  bind(table, options);
  std::string line = "clip_lora";
  for (const auto& word : table.words(defaults.to_json())) line += " " + shell_quoted(word);
  return line;
}

}  // namespace clip_lora::cli
