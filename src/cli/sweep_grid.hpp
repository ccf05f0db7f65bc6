#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "sweep_options.hpp"

namespace clip_lora::cli {

/// One combination of a sweep.
struct SweepRun {
  RunOptions options;
  std::string label;  ///< what people call it, e.g. "eurosat 4 shots r4 seed 1"
};

/// All combinations: those of a backbone together, in it those of a data set. Throws ConfigError: unknown
/// keys in the grid (the nearest is offered), a key without values, a value twice, or options that are none
/// of a run.
std::vector<SweepRun> expand_grid(const SweepOptions& options);

/// The `runs` of part "i/n", all of them if `part` is empty. The parts differ by one run in length at most.
/// Throws ConfigError.
std::vector<SweepRun> part_of(const std::vector<SweepRun>& runs, const std::string& part);

/// The command that does a run of the sweep alone, for a shell.
std::string command_of(const RunOptions& options);

/// The program that runs now, an absolute path.
std::filesystem::path this_program();

}  // namespace clip_lora::cli
