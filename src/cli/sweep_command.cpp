#include <algorithm>
#include <iostream>
#include <memory>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/version.hpp"
#include "command_line.hpp"
#include "sweep_options.hpp"
#include "sweep_plan.hpp"
#include "sweep_processes.hpp"
#include "sweep_progress.hpp"
#include "sweep_slurm.hpp"
#include "sweep_worker.hpp"

namespace clip_lora::cli {
namespace {

constexpr int kRunsFailed = 1;

std::string count(std::size_t number) { return with_commas(static_cast<std::int64_t>(number)); }

std::string runs(std::size_t number) { return count(number) + (number == 1 ? " run" : " runs"); }

std::string estimate(const SweepPlan& plan, std::size_t processes) {
  if (!plan.seconds) return "how long it takes is not known yet";
  const double seconds = *plan.seconds / static_cast<double>(std::max<std::size_t>(1, processes));
  const std::string source = plan.finished_runs > 0 ? "as the " + runs(plan.finished_runs) + " before took"
                                                    : "a guess by the model's size";
  return "about " + duration(seconds) + " (" + source + ")";
}

void print_plan(const SweepPlan& plan, const SweepOptions& options, std::size_t processes) {
  const std::size_t to_do = plan.count_to_do();
  std::cout << "clip_lora " << kVersion << "   sweep of " << runs(plan.runs.size()) << " in "
            << options.run.output.save_path << "\n";
  if (to_do < plan.runs.size()) std::cout << "done       " << runs(plan.runs.size() - to_do) << "\n";
  if (to_do > 0) {
    std::cout << "to do      " << runs(to_do) << "   " << with_commas(plan.iterations_to_do())
              << " iterations   " << estimate(plan, processes) << "\n"
              << "disk       " << megabytes(plan.bytes) << " of the " << megabytes(plan.free_bytes)
              << " that are free\n";
  }
  if (processes > 1) std::cout << "processes  " << processes << "\n";
  std::cout << std::flush;
}

SweepOutcome work_here(const SweepOptions& options, bool is_worker) {
  auto session = std::make_unique<RunSession>();
  const SweepPlan plan = make_plan(options, session.get());
  if (!is_worker) {
    for (const auto& note : plan.notes) log_warning(note);
    print_plan(plan, options, 1);
  }
  SweepProgress progress(plan, !is_worker && !options.run.compute.quiet);
  return work(options, plan, std::move(session), progress);
}

SweepOutcome work_in(const std::vector<std::string>& gpus, const SweepOptions& options,
                     std::vector<std::string> arguments) {
  const SweepPlan plan = make_plan(options, nullptr);
  for (const auto& note : plan.notes) log_warning(note);
  print_plan(plan, options, gpus.size());
  if (plan.count_to_do() == 0) return {};
  SweepProgress progress(plan, !options.run.compute.quiet);
  arguments.insert(arguments.begin(), "sweep");
  return work_in_processes(arguments, gpus, plan, progress);
}

void print_commands(const SweepOptions& options) {
  const SweepPlan plan = make_plan(options, nullptr);
  for (const auto& note : plan.notes) log_warning(note);
  for (const auto& run : plan.runs) {
    if (!run.is_done) std::cout << command_of(run.run.options) << "\n";
  }
}

void write_script(const SweepOptions& options) {
  const SweepPlan plan = make_plan(options, nullptr);
  for (const auto& note : plan.notes) log_warning(note);
  if (options.run.output.checkpoint_every == 0) {
    log_warning(
        "a task whose time is up is not queued again, since its run would begin anew (hint: "
        "--checkpoint_every)");
  }
  print_plan(plan, options, 1);
  std::cout << "saved      " << write_slurm_script(options, plan.runs.size()).string() << "\n";
}

}  // namespace

int sweep_command(const std::vector<std::string>& arguments) {
  SweepOptions options;
  if (!parse(options, arguments)) return 0;
  set_up(options.run.compute);
  if (options.print_runs) {
    print_commands(options);
    return 0;
  }
  if (options.slurm.write_script) {
    write_script(options);
    return 0;
  }
  const bool is_worker = is_worker_process();
  const auto gpus = is_worker ? std::vector<std::string>() : process_gpus(options);
  const Stopwatch stopwatch;
  const SweepOutcome outcome =
      gpus.empty() ? work_here(options, is_worker) : work_in(gpus, options, arguments);
  if (is_worker) return outcome.failed > 0 ? kRunsFailed : 0;
  std::cout << "finished   " << runs(outcome.done) << " in " << duration(stopwatch.seconds()) << std::endl;
  if (!options.run.compute.quiet)
    std::cout << "tables     clip_lora report " << shell_quoted(options.run.output.save_path) << std::endl;
  if (outcome.failed == 0) return 0;
  std::cout << "failed     " << runs(outcome.failed)
            << "; their folders say why, in error.json; the same command tries "
            << "again" << std::endl;
  return kRunsFailed;
}

}  // namespace clip_lora::cli
