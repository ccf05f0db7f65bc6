#include "cli/sweep_survival.hpp"

#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <thread>
#include <vector>

#include "cli/sweep_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::IsEmpty;

std::string numbers_up_to(int last) {
  std::string words;
  for (int i = 1; i <= last; ++i) words += (i == 1 ? "" : " ") + std::to_string(i);
  return words;
}

/// Nothing but temporary files may be half at any time.
void expect_whole_files(const fs::path& folder, const std::map<std::string, Result>& undisturbed) {
  if (!fs::exists(folder)) return;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    const fs::path& path = entry.path();
    if (path.extension() == ".json") {
      EXPECT_TRUE(json::accept(read_bytes(path))) << path;
    }
    if (path.filename() == "lora_weights.pt") {
      EXPECT_EQ(read_bytes(path),
                undisturbed.at(path.parent_path().lexically_relative(folder).string()).adapter)
          << path;
    }
  }
}

/// Folders of runs that were begun and are not done.
std::size_t count_begun(const fs::path& folder) {
  std::size_t count = 0;
  if (!fs::exists(folder)) return count;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_directory() || fs::is_empty(entry)) continue;
    const bool is_of_a_run = entry.path().filename().string().starts_with("seed");
    count += is_of_a_run && !fs::exists(entry.path() / "results.json") ? 1 : 0;
  }
  return count;
}

/// metrics.jsonl has each iteration once, in order.
void expect_whole_metrics(const fs::path& folder) {
  for (const auto& run : finished_runs(folder)) {
    std::istringstream lines(read_bytes(folder / run / "metrics.jsonl"));
    std::int64_t last = 0;
    for (std::string line; std::getline(lines, line);) {
      ASSERT_TRUE(json::accept(line)) << run << ": " << line;
      const auto iteration = json::parse(line)["iteration"].get<std::int64_t>();
      EXPECT_GT(iteration, last) << run;
      last = iteration;
    }
    EXPECT_GT(last, 0) << run;
  }
}

}  // namespace

void expect_to_survive_kills(int seeds, int iterations, int kills, int longest_ms) {
  const SweepTask task;
  const std::map<std::string, std::string> changes = {{"--seeds", numbers_up_to(seeds)},
                                                      {"--n_iters", std::to_string(iterations)}};
  ASSERT_EQ(task.run("undisturbed", changes).exit_code, 0);
  const auto undisturbed = results_below(task / "undisturbed");
  const fs::path folder = task / "results";
  std::mt19937 generator(1);
  std::uniform_int_distribution<int> milliseconds(0, longest_ms);
  std::map<std::string, std::string> done;  // results.json by run
  int in_time = 0;
  for (int i = 0; i < kills; ++i) {
    Program program(task.arguments("results", changes));
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds(generator)));
    program.send(SIGKILL);
    in_time += program.wait().exit_code == -SIGKILL ? 1 : 0;
    expect_whole_files(folder, undisturbed);
    EXPECT_LE(count_begun(folder), 1U) << "only the work on one run is lost";
    for (const auto& [run, results] : done)
      EXPECT_EQ(read_bytes(folder / run / "results.json"), results) << run;
    for (const auto& run : finished_runs(folder)) done[run] = read_bytes(folder / run / "results.json");
  }
  const std::size_t before_last = done.size();
  const Outcome last = run_program(task.arguments("results", changes));
  EXPECT_EQ(last.exit_code, 0) << last.errors;
  EXPECT_EQ(results_below(folder), undisturbed);
  EXPECT_THAT(leftovers_below(folder), IsEmpty());
  expect_whole_metrics(folder);
  std::cout << in_time << " of " << kills << " kills hit a live sweep; " << before_last << " of "
            << undisturbed.size() << " runs were done before the last start" << std::endl;
}

void expect_to_share(int processes, int seeds, int kills) {
  const SweepTask task;
  const auto arguments = task.arguments("results", {{"--seeds", numbers_up_to(seeds)},
                                                    {"--n_iters", "20"},
                                                    {"--lease_timeout", "10"},
                                                    {"--verbose", ""},
                                                    {"--cache_dir", (task / "cache").string()}});
  std::vector<std::unique_ptr<Program>> programs;
  for (int i = 0; i < processes; ++i) {
    const bool is_elsewhere = i < 2;
    programs.push_back(is_elsewhere ? std::make_unique<Program>(
                                          on_host("host" + std::to_string(i), arguments), kEnvironmentProgram)
                                    : std::make_unique<Program>(arguments));
  }
  std::mt19937 generator(2);
  const auto victims = static_cast<std::size_t>(kills);
  for (std::size_t i = 0; i < victims; ++i) {  // the first two are elsewhere, the others are not
    programs[i]->wait_for_output("to do ");
    std::this_thread::sleep_for(std::chrono::milliseconds(generator() % 500));
    programs[i]->send(SIGKILL);
    programs.push_back(std::make_unique<Program>(arguments));  // in its place
  }
  std::map<std::string, int> times_done;
  std::size_t caches_built = 0, done_by_all = 0, killed = 0;
  for (std::size_t i = 0; i < programs.size(); ++i) {
    const Outcome outcome = programs[i]->wait();
    killed += outcome.exit_code == -SIGKILL ? 1 : 0;
    if (i >= victims) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    }
    std::istringstream lines(outcome.output);
    for (std::string line; std::getline(lines, line);) {
      if (!line.starts_with("done       shapes")) continue;
      ++times_done[line.substr(0, line.find("   zero-shot"))];
      ++done_by_all;
    }
    std::istringstream errors(outcome.errors);
    for (std::string line; std::getline(errors, line);)
      caches_built += line.find("decoded images were added") != std::string::npos ? 1 : 0;
  }
  const std::size_t runs = 2 * static_cast<std::size_t>(seeds);
  EXPECT_EQ(finished_runs(task / "results").size(), runs);
  for (const auto& [run, times] : times_done) EXPECT_EQ(times, 1) << run;
  EXPECT_GE(done_by_all + static_cast<std::size_t>(kills), runs) << "who is killed may not have said so";
  EXPECT_EQ(caches_built, 1U);
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());
  EXPECT_THAT(leftovers_below(task / "cache"), IsEmpty());
  EXPECT_EQ(std::distance(fs::directory_iterator(task / "cache"), fs::directory_iterator()), 1);
  std::cout << done_by_all << " of " << runs << " runs were reported done by " << processes
            << " processes at a time, each once; " << killed << " were killed alive; " << caches_built
            << " cache built" << std::endl;
}

void expect_the_late_to_step_back() {
  const SweepTask task;
  const std::map<std::string, std::string> changes = {{"--n_iters", "400"}, {"--lease_timeout", "1"}};
  ASSERT_EQ(task.run("undisturbed", changes).exit_code, 0);
  const auto arguments = task.arguments("results", changes);
  Program late(on_host("elsewhere", arguments), kEnvironmentProgram);
  ASSERT_TRUE(late.wait_for_output("to do "));
  while (leftovers_below(task / "results").empty())
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // it is training
  late.send(SIGSTOP);
  Program other(arguments);
  ASSERT_TRUE(other.wait_for_output("shapes 1 shot seed 1   zero-shot"))
      << "it has taken over the first run, and done it";
  late.send(SIGCONT);
  const Outcome of_late = late.wait();
  const Outcome of_other = other.wait();
  EXPECT_EQ(of_late.exit_code, 0) << of_late.errors;
  EXPECT_EQ(of_other.exit_code, 0) << of_other.errors;
  EXPECT_EQ(count_lines(of_late.output, "lost "), 1U) << of_late.output;
  EXPECT_EQ(
      count_lines(of_late.output, "done       shapes") + count_lines(of_other.output, "done       shapes"),
      4U);
  EXPECT_EQ(results_below(task / "results"), results_below(task / "undisturbed"));
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());
  expect_whole_metrics(task / "results");
}

}  // namespace clip_lora::testing
