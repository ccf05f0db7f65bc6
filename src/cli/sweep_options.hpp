#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/io/lease.hpp"

namespace clip_lora::cli {

/// What the array job of `--slurm` asks for.
struct SlurmOptions {
  bool write_script = false;
  std::string partition;  ///< empty: the cluster's default, as of the others
  std::string account;
  std::string time;                   ///< of one task, e.g. "04:00:00"
  std::string memory;                 ///< of one task, e.g. "32G"
  std::int64_t gpus = 1;              ///< of one task
  std::int64_t gpus_per_run = 1;      ///< that train one run together, a process on each
  std::int64_t cpus = 0;              ///< of one task; 0: the cluster's default
  std::int64_t parallel = 0;          ///< tasks at the same time; 0: as many as the cluster likes
  std::int64_t largest_array = 1001;  ///< the cluster's MaxArraySize
  std::int64_t grace_seconds = 120;   ///< before a task's time is up it is told to checkpoint
  std::vector<std::string> others;    ///< words of further `#SBATCH` lines

  void validate() const;
};

/// Everything that `clip_lora sweep` can be told.
struct SweepOptions {
  std::vector<std::string> datasets;  ///< as --dataset; or "all": all benchmarks
  std::vector<std::string> shots = {"16"};
  std::vector<std::string> seeds = {"1"};
  std::vector<std::string> backbones =
      {};  ///< names, or files or folders of checkpoints; empty: --checkpoint
  nlohmann::json grid = nlohmann::json::object();  ///< {flag of a run: [value, …]}
  RunOptions run;                                  ///< what all runs have in common
  bool skip_missing = false;                       ///< leave out data sets that are not there
  bool force = false;                              ///< replace results of other settings
  bool print_runs = false;          ///< print the commands of what is to be done, and do nothing
  std::string part;                 ///< "i/n": only the i-th (from 0) of n parts of the runs
  std::string gpus;                 ///< "all" or "0,1": a process for each; empty: this process
  std::int64_t processes = 0;       ///< in all; 0: one per GPU
  std::int64_t lease_timeout = 60;  ///< seconds
  SlurmOptions slurm;

  /// The options that were written out, as JSON for --config.
  nlohmann::ordered_json given = nlohmann::ordered_json::object();
  /// Those of them that are a run's.
  nlohmann::json given_of_run = nlohmann::json::object();

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
  io::LeaseOptions lease() const;
};

/// Reads the command line of `clip_lora sweep`. False if there is nothing more to do: help or the
/// configuration has been printed. Throws ConfigError.
bool parse(SweepOptions& options, const std::vector<std::string>& arguments);

}  // namespace clip_lora::cli
