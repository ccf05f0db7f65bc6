#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "clip_lora/cli/run_options.hpp"

namespace clip_lora::cli {

/// `word` as a POSIX shell reads it back: in quotes where it needs them.
std::string shell_quoted(const std::string& word);

/// `clip_lora --dataset …`, the command that repeats a run: every option that is not as it is by default, in
/// the order of the help text, for a POSIX shell.
std::string command_line(RunOptions options);

/// Every option that has a part in the run, by its flag: a configuration that repeats it.
nlohmann::ordered_json settings_of(RunOptions options);

/// Every option by its flag, as it stands where nothing is given: what a flag meant before there was one.
const nlohmann::ordered_json& default_settings();

}  // namespace clip_lora::cli
