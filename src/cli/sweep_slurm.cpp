#include "sweep_slurm.hpp"

#include <algorithm>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"
#include "sweep_grid.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

void add_option(std::string& text, const std::string& name, const std::string& value) {
  if (!value.empty()) text += "#SBATCH --" + name + "=" + value + "\n";
}

std::string number(std::int64_t value) { return value == 0 ? std::string() : std::to_string(value); }

/// The configuration without what concerns the script.
std::string configuration(const SweepOptions& options) {
  nlohmann::ordered_json given = options.given;
  for (const auto& [key, value] : options.given.items()) {
    if (key.starts_with("slurm") || key == "print_runs") given.erase(key);
  }
  return io::json_text(given, 2) + "\n";
}

std::string header(const SlurmOptions& options, const fs::path& logs, std::size_t tasks) {
  std::string array = "0-" + std::to_string(tasks - 1);
  if (options.parallel > 0) array += "%" + std::to_string(options.parallel);
  std::string text = "#!/usr/bin/env bash\n";
  add_option(text, "job-name", "clip_lora");
  add_option(text, "array", array);
  add_option(text, "output", (logs / "%A_%a.log").string());
  add_option(text, "open-mode", "append");
  text += "#SBATCH --requeue\n";
  add_option(text, "signal", "B:USR1@" + std::to_string(options.grace_seconds));
  add_option(text, "partition", options.partition);
  add_option(text, "account", options.account);
  add_option(text, "time", options.time);
  add_option(text, "mem", options.memory);
  add_option(text, "gres", options.gpus == 0 ? "" : "gpu:" + std::to_string(options.gpus));
  add_option(text, "cpus-per-task", number(options.cpus));
  for (const auto& other : options.others) text += "#SBATCH " + other + "\n";
  return text;
}

/// How often Slurm may begin a task again. Without checkpoints a run that is longer than the task's time
/// would never come to its end.
int most_requeues(const SweepOptions& options) { return options.run.output.checkpoint_every > 0 ? 100 : 0; }

/// A command runs in the background, since bash hears of signals between commands only.
constexpr const char* kBegin = R"(
time_is_up=no
process=
is_stopped=no
stop() {
  is_stopped=yes
  [ -z "$process" ] || kill -TERM "$process" 2>/dev/null
}
trap 'time_is_up=yes; stop' USR1  # Slurm: the time is nearly up
trap stop TERM

run() {
  "$@" &
  process=$!
  [ "$is_stopped" = no ] || stop  # a signal came before there was a process to pass it on to
  code=$((128 + 10))
  while [ "$code" -gt 128 ] && kill -0 "$process" 2>/dev/null; do
    wait "$process"  # a signal ends it early
    code=$?
  done
  wait "$process" 2>/dev/null
  local ended=$?
  [ "$ended" = 127 ] || code=$ended
}
)";

/// What a task does: its part of the sweep.
constexpr const char* kPart = R"(
run "${command[@]}" --part "$SLURM_ARRAY_TASK_ID/$tasks"
)";

/// Or each of its runs by several processes. One that fails does not keep the next ones from being done.
constexpr const char* kPartOfSeveralProcesses = R"bash(
list=$("${command[@]}" --print_runs --part "$SLURM_ARRAY_TASK_ID/$tasks") || exit
mapfile -t lines <<< "$list"
worst=0
for line in "${lines[@]}"; do
  eval "words=($line)"
  [ -n "$line" ] && [ "$is_stopped" = no ] || continue
  CLIP_LORA=${words[0]} run "$launcher" --processes "$gpus_per_run" "${words[@]:1}"
  [ "$code" = 0 ] || worst=$code
done
code=$worst
[ "$is_stopped" = no ] || code=143
)bash";

constexpr const char* kEnd = R"(
if [ "$time_is_up" = yes ] && [ "$code" = 143 ]; then
  if [ "${SLURM_RESTART_COUNT:-0}" -lt "$most_requeues" ]; then
    scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  else
    echo "the time is up; not queued again: that is done $most_requeues times, without --checkpoint_every never"
  fi
fi
exit "$code"
)";

/// The script that starts a run's processes, which lies beside the program.
fs::path launcher() {
  fs::path script = this_program().parent_path() / "launch_multi_gpu.sh";
  if (!fs::exists(script))
    throw ConfigError("--slurm_gpus_per_run needs '" + script.string() + "', which is not there");
  return script;
}

}  // namespace

fs::path write_slurm_script(const SweepOptions& options, std::size_t runs) {
  if (runs == 0) throw ConfigError("--slurm: the sweep has no runs");
  const fs::path folder = fs::absolute(options.run.output.save_path).lexically_normal();
  const fs::path configuration_file = folder / "sweep.json";
  fs::path script = folder / "sweep.sbatch";
  const fs::path logs = folder / "slurm";
  // sbatch takes the rest of the line as it is, without a shell's quotes.
  if (logs.string().find_first_of(" \t\n%\"'\\") != std::string::npos) {
    throw ConfigError(
        "--save_path '" + folder.string() +
        "': sbatch cannot write its logs to a folder with white space, quotes or % in its name");
  }
  fs::create_directories(logs);
  const std::size_t tasks = std::min(runs, static_cast<std::size_t>(options.slurm.largest_array));
  std::string work = kPart;
  if (options.slurm.gpus_per_run > 1) {
    work = "\nlauncher=" + shell_quoted(launcher().string()) +
           "\ngpus_per_run=" + std::to_string(options.slurm.gpus_per_run) + kPartOfSeveralProcesses;
  }
  const std::string text = header(options.slurm, logs, tasks) + "\n# " + std::to_string(runs) + " runs in " +
                           std::to_string(tasks) + " tasks; what is done already is passed over.\n" + "cd " +
                           shell_quoted(fs::current_path().string()) + " || exit 1\n" +
                           "tasks=" + std::to_string(tasks) + "\n" +
                           "most_requeues=" + std::to_string(most_requeues(options)) + "\n" + "command=(" +
                           shell_quoted(this_program().string()) + " sweep --config " +
                           shell_quoted(configuration_file.string()) + ")\n" + kBegin + work + kEnd;
  io::write_atomically(configuration_file, configuration(options));
  io::write_atomically(script, text);
  return script;
}

}  // namespace clip_lora::cli
