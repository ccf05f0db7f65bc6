#include "sweep_options.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <regex>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "command_line.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::json;

/// Flags of a run that a sweep has as lists, or that make no sense in one.
constexpr std::array kNotOfSweeps = {"dataset", "shots",     "seed",        "backbone",
                                     "variant", "eval_only", "skip_missing"};

void bind(OptionTable& table, SlurmOptions& options) {
  table.group("Slurm");
  table.add("slurm", options.write_script,
            "write an array job's script, <save_path>/sweep.sbatch, and the sweep's configuration beside it");
  table.add("slurm_partition", options.partition, "its partition");
  table.add("slurm_account", options.account, "its account");
  table.add("slurm_time", options.time, "time limit of a task, e.g. 04:00:00");
  table.add("slurm_memory", options.memory, "memory of a task, e.g. 32G");
  table.add("slurm_gpus", options.gpus, "GPUs of a task; 0: none");
  table.add("slurm_gpus_per_run", options.gpus_per_run,
            "GPUs of a task that train one run together, a process on each");
  table.add("slurm_cpus", options.cpus, "CPU cores of a task; 0: the cluster's default");
  table.add("slurm_parallel", options.parallel, "tasks at the same time; 0: no limit");
  table.add("slurm_max_array", options.largest_array,
            "MaxArraySize of the cluster (scontrol show config): of more runs a task does several");
  table.add("slurm_grace", options.grace_seconds,
            "seconds before the end of its time at which a task stops; with --checkpoint_every it is queued "
            "again and goes on");
  table.add_repeated("slurm_option", options.others,
                     "another option of sbatch, e.g. --slurm_option=--qos=low");
}

void bind(OptionTable& table, SweepOptions& options) {
  bind(table, options.run);
  for (const char* name : kNotOfSweeps) table.remove(name);
  table.group("Sweep");
  table.add_words("datasets", options.datasets,
                  "data sets, as --dataset of a run; all: the eleven benchmarks, with --protocol robustness "
                  "ImageNet, with retrieval the three with captions");
  table.add_words("shots", options.shots, "training images per class, or all");
  table.add_words("seeds", options.seeds, "seeds of sample and training");
  table.add_words("backbones", options.backbones, "names of CLIPs, or files or folders of checkpoints");
  table.add_key(
      "grid", [&options](const json& value) { options.grid = value; }, [&options] { return options.grid; });
  table.add("skip_missing", options.skip_missing,
            "leave out data sets whose folder or all of whose images are missing, those that a protocol "
            "tests on included");
  table.add("force", options.force, "do runs again whose results are of other settings");
  table.add("print_runs", options.print_runs,
            "print a command for each run that is to be done, one a line, and do nothing");
  table.add("part", options.part, "I/N: only part I (from 0) of N equal ones of the runs");
  table.add("gpus", options.gpus, "all, or their numbers, e.g. 0,1: a process for each");
  table.add("processes", options.processes, "processes in all; 0: one per GPU of --gpus, else one");
  table.add("lease_timeout", options.lease_timeout,
            "seconds after which a run is taken over from a process on another machine that shows no life");
  bind(table, options.slurm);
}

void require_positive(const std::string& flag, std::int64_t value, std::int64_t least) {
  if (value >= least) return;
  throw ConfigError(flag + " " + std::to_string(value) + ": expected at least " + std::to_string(least));
}

/// A line of the script may not become another.
void require_one_line(const std::string& flag, const std::string& value) {
  if (value.find_first_of("\n\r") != std::string::npos) throw ConfigError(flag + ": expected one line");
}

/// Seconds of a time limit as sbatch takes it: minutes, minutes:seconds, hours:minutes:seconds, days-hours,
/// days-hours:minutes or days-hours:minutes:seconds. Nothing if it sets no limit. Throws ConfigError.
std::optional<std::int64_t> slurm_seconds(const std::string& time) {
  if (time == "0" || time == "UNLIMITED" || time == "INFINITE") return std::nullopt;
  static const std::regex kForm(R"((?:(\d{1,6})-)?(\d{1,6})(?::(\d{1,6}))?(?::(\d{1,6}))?)");
  std::smatch match;
  if (!std::regex_match(time, match, kForm)) {
    throw ConfigError("--slurm_time '" + time +
                      "': expected minutes, hours:minutes:seconds, days-hours or another form of sbatch's");
  }
  const auto part = [&](std::size_t i) { return match[i].matched ? std::stoll(match[i].str()) : 0; };
  const auto seconds = [](std::int64_t hours, std::int64_t minutes, std::int64_t rest) {
    return (hours * 60 + minutes) * 60 + rest;
  };
  const bool begins_with_hours = match[1].matched || match[4].matched;
  if (begins_with_hours) return seconds(24 * part(1) + part(2), part(3), part(4));
  return seconds(0, part(2), part(3));
}

}  // namespace

void SlurmOptions::validate() const {
  require_positive("--slurm_gpus", gpus, 0);
  require_positive("--slurm_gpus_per_run", gpus_per_run, 1);
  if (gpus_per_run > 1 && gpus_per_run > gpus) {
    throw ConfigError("--slurm_gpus_per_run " + std::to_string(gpus_per_run) +
                      ": expected at most --slurm_gpus " + std::to_string(gpus) + ", the GPUs of a task");
  }
  require_positive("--slurm_cpus", cpus, 0);
  require_positive("--slurm_parallel", parallel, 0);
  require_positive("--slurm_max_array", largest_array, 1);
  require_positive("--slurm_grace", grace_seconds, 1);
  require_one_line("--slurm_partition", partition);
  require_one_line("--slurm_account", account);
  require_one_line("--slurm_time", time);
  require_one_line("--slurm_memory", memory);
  const auto limit = time.empty() ? std::nullopt : slurm_seconds(time);
  if (limit && grace_seconds >= *limit) {
    throw ConfigError("--slurm_grace " + std::to_string(grace_seconds) +
                      ": expected less than --slurm_time " + time + ", which is " + std::to_string(*limit) +
                      " seconds");
  }
  for (const auto& other : others) require_one_line("--slurm_option", other);
}

void SweepOptions::validate() const {
  if (run.output.save_path.empty())
    throw ConfigError("--save_path is missing: a sweep goes on where it was stopped by what is there");
  if (!gpus.empty() && run.compute.device != "auto")
    throw ConfigError("--gpus and --device exclude each other");
  if (slurm.write_script && !part.empty())
    throw ConfigError("--slurm and --part exclude each other: each task of the script does a part");
  require_positive("--processes", processes, 0);
  require_positive("--lease_timeout", lease_timeout, 1);
  slurm.validate();
}

io::LeaseOptions SweepOptions::lease() const {
  constexpr int kBeatsPerTimeout = 10;
  const std::chrono::milliseconds timeout = std::chrono::seconds(lease_timeout);
  const std::chrono::milliseconds usual = io::LeaseOptions{}.heartbeat;
  return {timeout, std::min(usual, timeout / kBeatsPerTimeout)};
}

bool parse(SweepOptions& options, const std::vector<std::string>& arguments) {
  OptionTable table(
      "clip_lora sweep",
      "Trains an adapter for each combination of data sets, shots, seeds and backbones, and of the "
      "values in the configuration file's \"grid\": {flag: [value, ...]}. Any flag of a run applies "
      "to all. The results are at <save_path>/<backbone>/<dataset>/<shots>shots/seed<seed>, with a "
      "grid at .../<shots>shots/<flags and values of the grid>/seed<seed>. Started again, a sweep "
      "does what is missing; any number of processes and machines may share the folder.");
  bind(table, options);
  table.set_without_part([] {  // what a run has beside what is given is for its method and protocol to say
    std::set<std::string> flags;
    for (const auto& [flag, value] : default_settings().items()) flags.insert(flag);
    for (const char* name : kNotOfSweeps) flags.erase(name);
    return flags;
  });
  if (!table.parse(arguments)) return false;
  OptionTable run("", "");
  RunOptions unused;
  bind(run, unused);
  const nlohmann::ordered_json of_run = run.to_json();
  const nlohmann::ordered_json all = table.to_json();
  for (const auto& [key, value] : all.items()) {
    if (!table.given().contains(key)) continue;
    options.given[key] = value;
    const bool is_own = key == "shots" || key == "skip_missing";  // not the run's of the same name
    if (of_run.contains(key) && !is_own) options.given_of_run[key] = value;
  }
  options.validate();
  return true;
}

}  // namespace clip_lora::cli
