#pragma once

#include <string>
#include <vector>

namespace clip_lora::cli {

/// `clip_lora --dataset …`: trains and evaluates, or evaluates a saved adapter. Returns 0; throws as
/// cli::run.
int run_command(const std::vector<std::string>& arguments);

/// `clip_lora demo`: draws a small set of pictures and adapts a tiny CLIP to it. Returns 0; throws as
/// cli::run.
int demo_command(const std::vector<std::string>& arguments);

/// `clip_lora export`: writes an adapter, or a CLIP with it merged in, for another program. Returns 0; throws
/// ConfigError, CheckpointError.
int export_command(const std::vector<std::string>& arguments);

/// `clip_lora inspect PATH`: says what a checkpoint or an adapter is. Returns 0; throws ConfigError,
/// CheckpointError.
int inspect_command(const std::vector<std::string>& arguments);

/// `clip_lora datasets`: says which benchmarks are below a folder, and what is missing. Returns 0, or 3 if an
/// image is missing or broken; throws ConfigError, DataError.
int datasets_command(const std::vector<std::string>& arguments);

/// `clip_lora split DIR --out FILE`: writes a split of class folders. Returns 0; throws ConfigError,
/// DataError.
int split_command(const std::vector<std::string>& arguments);

/// `clip_lora sweep --datasets …`: many runs, some of which may be done. Returns 0, or 1 if runs failed;
/// throws ConfigError, DataError, CheckpointError, Interrupted.
int sweep_command(const std::vector<std::string>& arguments);

/// The exit code of predict and embed where pictures had to be skipped.
constexpr int kSkippedFiles = 3;

/// `clip_lora predict IMAGES… --adapter A`: classifies pictures. Returns 0, or 3 if pictures had to be
/// skipped; throws ConfigError, DataError, CheckpointError, Interrupted.
int predict_command(const std::vector<std::string>& arguments);

/// `clip_lora report DIR`: gathers the results below a folder into results.csv, results.md and report.html.
/// What cannot be read is warned of. Returns 0; throws DataError if nothing can be read, ConfigError.
int report_command(const std::vector<std::string>& arguments);

/// `clip_lora compare RUN_A RUN_B`: settings that differ, accuracies, and McNemar's test of the saved
/// predictions. Returns 0; throws DataError, ConfigError.
int compare_command(const std::vector<std::string>& arguments);

/// `clip_lora embed IMAGES…`: writes image features. Returns and throws as predict_command.
int embed_command(const std::vector<std::string>& arguments);

/// The commands with a name of their own, one line each, for the help text.
std::string command_list();

/// Runs the command that `arguments` (without the program's name) name, run_command where they begin with a
/// flag. Errors are printed to the standard error stream. Returns the exit code: 0; 2 usage; 3 data; 4
/// checkpoint or adapter; 1 other; 128 + n on signal n.
int main(const std::vector<std::string>& arguments);

}  // namespace clip_lora::cli
