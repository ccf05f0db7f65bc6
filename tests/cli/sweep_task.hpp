#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/program.hpp"
#include "cli/small_task.hpp"

namespace clip_lora::testing {

/// A sweep of small runs.
class SweepTask {
 public:
  /// `clip_lora sweep` of shots 1 and 2 with seeds 1 and 2, four runs, saved under `folder` of the task; with
  /// `changes` to its flags as SmallTask has them.
  std::vector<std::string> arguments(const std::string& folder = "results",
                                     const std::map<std::string, std::string>& changes = {}) const;
  Outcome run(const std::string& folder = "results",
              const std::map<std::string, std::string>& changes = {}) const {
    return run_program(arguments(folder, changes));
  }

  std::filesystem::path operator/(const std::filesystem::path& name) const { return task_ / name; }

  const SmallTask& task() const { return task_; }

 private:
  SmallTask task_;
};

/// The folders below `folder` that hold a results.json, relative to it, sorted.
std::vector<std::string> finished_runs(const std::filesystem::path& folder);

/// What must not depend on when and where a run was done, nor on interruptions: its results without times,
/// memory and paths, and the adapter's bytes.
struct Result {
  nlohmann::json results;
  std::string adapter;
  bool operator==(const Result&) const = default;
};
std::map<std::string, Result> results_below(const std::filesystem::path& folder);

/// What the results below "results" of the task say of memory, by seeds from 1 to `runs`, one shot each: `key`,
/// in bytes.
std::vector<double> memory_by_seed(const SweepTask& task, int runs, const std::string& key);

/// Files below `folder` that a sweep that is done has no use for, relative to it: temporary files, leases,
/// checkpoints, recorded failures.
std::vector<std::string> leftovers_below(const std::filesystem::path& folder);

/// The metrics.jsonl below `folder` of a run that has told of iterations and is not done; waits up to a
/// minute for one. "": there is none.
std::filesystem::path wait_for_metrics_under_way(const std::filesystem::path& folder);

std::string first_line(const std::filesystem::path& file);

/// How many lines of `text` begin with `word`.
std::size_t count_lines(const std::string& text, const std::string& word);

/// The program's words for a process that believes to be on the machine `host`.
std::vector<std::string> on_host(const std::string& host, const std::vector<std::string>& arguments);
inline constexpr const char* kEnvironmentProgram = "/usr/bin/env";

}  // namespace clip_lora::testing
