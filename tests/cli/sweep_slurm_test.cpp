#include <gmock/gmock.h>
#include <stdlib.h>

#include "cli/sweep_task.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

/// Stands in for Slurm: `sbatch SCRIPT` does the script's tasks one after the other, `scontrol requeue
/// JOB_TASK` notes it. The first task gets `signal` (empty: none) when one of its runs is done and the next
/// has told of iterations: USR1 as Slurm sends it before the time is up, to the shell alone; others to all
/// processes.
constexpr const char* kSbatch = R"(#!/usr/bin/env bash
# usage: sbatch FOLDER SIGNAL SCRIPT
set -u
is_training() {
  local metrics
  for metrics in $(find "$1" -name metrics.jsonl); do
    [ -s "$metrics" ] && [ ! -e "${metrics%/*}/results.json" ] && return 0
  done
  return 1
}
export PATH="$1:$PATH" SLURM_ARRAY_JOB_ID=7
last=$(sed -n 's/^#SBATCH --array=0-\([0-9]*\).*/\1/p' "$3")
worst=0
for task in $(seq 0 "$last"); do
  export SLURM_ARRAY_TASK_ID=$task
  setsid bash "$3" > "$1/task_$task.log" 2>&1 &
  shell=$!
  if [ "$task" = 0 ] && [ -n "$2" ]; then
    for _ in $(seq 2000); do grep -q '^done' "$1/task_0.log" && is_training "${3%/*}" && break; sleep 0.02; done
    if [ "$2" = USR1 ]; then kill -USR1 "$shell"; else kill -"$2" -- -"$shell"; fi
  fi
  wait "$shell" || worst=$?
done
exit "$worst"
)";

class SlurmTask {
 public:
  explicit SlurmTask(const std::map<std::string, std::string>& changes) {
    auto flags = changes;
    flags["--slurm"] = "";
    written_ = task_.run("results", flags);
    fs::create_directories(task_ / "slurm");
    write_bytes(task_ / "slurm/sbatch", kSbatch);
    write_bytes(task_ / "slurm/scontrol",
                "#!/bin/sh\necho \"$@\" >> '" + (task_ / "slurm/requeued").string() + "'\n");
    for (const char* file : {"slurm/sbatch", "slurm/scontrol"}) {
      fs::permissions(task_ / file, fs::perms::owner_all, fs::perm_options::add);
    }
  }

  Outcome submit(const std::string& signal = {}) const {
    return run_program(
        {(task_ / "slurm/sbatch").string(), (task_ / "slurm").string(), signal, path().string()},
        "/bin/bash");
  }

  const Outcome& written() const { return written_; }
  fs::path path() const { return task_ / "results/sweep.sbatch"; }
  std::string script() const { return read_bytes(path()); }
  std::string log() const { return read_bytes(task_ / "slurm/task_0.log"); }  // of the first task
  std::string requeued() const { return read_bytes(task_ / "slurm/requeued"); }
  const SweepTask& task() const { return task_; }

 private:
  SweepTask task_;
  Outcome written_;
};

TEST(SweepSlurm, TheScriptAsksForWhatTheFlagsSayAndIsGoodBash) {
  const SlurmTask slurm({{"--slurm_partition", "gpu"},
                         {"--slurm_account", "lab"},
                         {"--slurm_time", "04:00:00"},
                         {"--slurm_memory", "32G"},
                         {"--slurm_gpus", "2"},
                         {"--slurm_cpus", "8"},
                         {"--slurm_parallel", "3"},
                         {"--slurm_grace", "90"},
                         {"--slurm_option=--qos=low", ""}});
  ASSERT_EQ(slurm.written().exit_code, 0) << slurm.written().errors;
  for (const char* line :
       {"--array=0-3%3", "--partition=gpu", "--account=lab", "--time=04:00:00", "--mem=32G", "--gres=gpu:2",
        "--cpus-per-task=8", "--signal=B:USR1@90", "--requeue", "--qos=low"}) {
    EXPECT_THAT(slurm.script(), HasSubstr("#SBATCH " + std::string(line) + "\n"));
  }
  const Outcome checked = run_program({"-n", slurm.path().string()}, "/bin/bash");
  EXPECT_EQ(checked.exit_code, 0) << checked.errors;
  EXPECT_THAT(finished_runs(slurm.task() / "results"), IsEmpty()) << "nothing is run yet";
}

TEST(SweepSlurm, ItsTasksDoTheSweepInChunksThatRespectTheLargestArray) {
  const SlurmTask slurm({{"--seeds", "1 2 3"}, {"--slurm_max_array", "4"}, {"--slurm_gpus", "0"}});
  EXPECT_THAT(slurm.script(), HasSubstr("--array=0-3\n"));
  EXPECT_THAT(slurm.script(), Not(HasSubstr("gres")));
  const Outcome outcome = slurm.submit();
  EXPECT_EQ(outcome.exit_code, 0) << read_bytes(slurm.task() / "slurm/task_0.log");
  EXPECT_THAT(finished_runs(slurm.task() / "results"), SizeIs(6));
  EXPECT_THAT(leftovers_below(slurm.task() / "results"), IsEmpty());
  EXPECT_EQ(slurm.requeued(), "");
  ASSERT_EQ(slurm.task().run("plain", {{"--seeds", "1 2 3"}}).exit_code, 0);
  EXPECT_EQ(results_below(slurm.task() / "results"), results_below(slurm.task() / "plain"));
}

TEST(SweepSlurm, SeveralGpusOfATaskTrainEachOfItsRunsTogether) {
  const EnvironmentVariable threads("OMP_NUM_THREADS", "1");  // more than cores would wait, spinning
  const SlurmTask slurm({{"--slurm_gpus", "2"},
                         {"--slurm_gpus_per_run", "2"},
                         {"--slurm_max_array", "1"},
                         {"--shots", "1"},
                         {"--device", "cpu"}});
  ASSERT_EQ(slurm.written().exit_code, 0) << slurm.written().errors;
  EXPECT_THAT(slurm.script(), HasSubstr("gpus_per_run=2\n"));
  const Outcome outcome = slurm.submit();
  EXPECT_EQ(outcome.exit_code, 0) << slurm.log();
  const fs::path folder = slurm.task() / "results";
  const auto runs = finished_runs(folder);
  EXPECT_THAT(runs, SizeIs(2));
  for (const auto& run : runs) {
    const auto results = nlohmann::json::parse(read_bytes(folder / run / "results.json"));
    EXPECT_EQ(results.at("processes"), 2);
  }
  EXPECT_THAT(leftovers_below(folder), IsEmpty());
}

TEST(SweepSlurm, ATaskWhoseTimeIsUpCheckpointsAndIsQueuedAgain) {
  const std::map<std::string, std::string> slow = {
      {"--n_iters", "1000"}, {"--checkpoint_every", "10000"}, {"--shots", "1"}, {"--slurm_max_array", "1"}};
  const SlurmTask slurm(slow);
  EXPECT_EQ(slurm.submit("USR1").exit_code, 143) << slurm.log();
  EXPECT_EQ(slurm.requeued(), "requeue 7_0\n");
  EXPECT_THAT(slurm.log(), HasSubstr("interrupted after iteration"));
  const fs::path folder = slurm.task() / "results";
  EXPECT_THAT(finished_runs(folder), SizeIs(1));
  EXPECT_THAT(leftovers_below(folder), ElementsAre(HasSubstr("checkpoint.safetensors")));
  const fs::path metrics = wait_for_metrics_under_way(folder);
  const std::string first = first_line(metrics);
  EXPECT_EQ(slurm.submit().exit_code, 0) << "the second time: " << slurm.log();
  EXPECT_THAT(finished_runs(folder), SizeIs(2));
  EXPECT_EQ(first_line(metrics), first) << "the speed too: it went on, and did not begin anew";
}

TEST(SweepSlurm, ATaskThatWouldBeginAnewOrHasBegunTooOftenIsNotQueuedAgain) {
  const std::map<std::string, std::string> slow = {
      {"--n_iters", "1000"}, {"--shots", "1"}, {"--slurm_max_array", "1"}};
  const SlurmTask without(slow);
  EXPECT_THAT(without.written().errors, HasSubstr("--checkpoint_every"));
  EXPECT_EQ(without.submit("USR1").exit_code, 143) << without.log();
  EXPECT_THAT(without.log(), HasSubstr("not queued again"));
  EXPECT_EQ(without.requeued(), "");

  auto checkpointing = slow;
  checkpointing["--checkpoint_every"] = "10000";
  const SlurmTask often(checkpointing);
  setenv("SLURM_RESTART_COUNT", "100", /*overwrite=*/1);
  EXPECT_EQ(often.submit("USR1").exit_code, 143) << often.log();
  unsetenv("SLURM_RESTART_COUNT");
  EXPECT_THAT(often.log(), HasSubstr("not queued again"));
  EXPECT_EQ(often.requeued(), "");
}

TEST(SweepSlurm, ATaskThatIsCancelledEndsInOrderAndIsNotQueuedAgain) {
  const SlurmTask slurm(
      {{"--n_iters", "1000"}, {"--shots", "1"}, {"--checkpoint_every", "10000"}, {"--slurm_max_array", "1"}});
  EXPECT_EQ(slurm.submit("TERM").exit_code, 143) << slurm.log();
  EXPECT_THAT(slurm.log(), HasSubstr("interrupted after iteration"));
  EXPECT_EQ(slurm.requeued(), "");
}

TEST(SweepSlurm, TheGraceIsLessThanTheTimeInAllOfSlurmsForms) {
  const SweepTask task;
  const auto write = [&](const std::string& time, const std::string& grace) {
    return task.run("results", {{"--slurm", ""}, {"--slurm_time", time}, {"--slurm_grace", grace}});
  };
  const std::map<std::string, int> forms = {{"2", 120},     {"2:30", 150},    {"1:00:05", 3605},
                                            {"1-0", 86400}, {"0-1:30", 5400}, {"0-00:01:01", 61}};
  for (const auto& [time, seconds] : forms) {
    EXPECT_EQ(write(time, std::to_string(seconds - 1)).exit_code, 0) << time;
    const Outcome refused = write(time, std::to_string(seconds));
    EXPECT_EQ(refused.exit_code, 2) << time;
    EXPECT_THAT(refused.errors, HasSubstr("expected less than --slurm_time"));
  }
  EXPECT_EQ(write("UNLIMITED", "120").exit_code, 0);
  EXPECT_THAT(write("4h", "120").errors, HasSubstr("--slurm_time '4h'"));
}

TEST(SweepSlurm, AScriptNeedsNoGpuWhereItIsWritten) {
  const SlurmTask slurm({{"--device", "cuda"}, {"--precision", "fp16"}});
  EXPECT_EQ(slurm.written().exit_code, 0) << slurm.written().errors;
}

TEST(SweepSlurm, AFlagThatWouldBreakTheScriptIsRefused) {
  const SweepTask task;
  EXPECT_EQ(run_program([&] {
              auto words = task.arguments("results", {{"--slurm", ""}});
              words.insert(words.end(), {"--slurm_partition", "gpu\nrm -rf /"});
              return words;
            }())
                .exit_code,
            2);
  EXPECT_EQ(task.run("results", {{"--slurm", ""}, {"--slurm_max_array", "0"}}).exit_code, 2);
  const Outcome gpus = task.run("results", {{"--slurm", ""}, {"--slurm_gpus_per_run", "2"}});
  EXPECT_EQ(gpus.exit_code, 2);
  EXPECT_THAT(gpus.errors, HasSubstr("--slurm_gpus_per_run 2: expected at most --slurm_gpus 1"));
  const Outcome part = task.run("results", {{"--slurm", ""}, {"--part", "0/2"}});
  EXPECT_EQ(part.exit_code, 2);
  EXPECT_THAT(part.errors, HasSubstr("--slurm and --part exclude each other"));
  EXPECT_EQ(task.run("with'quote", {{"--slurm", ""}}).exit_code, 2);
}

}  // namespace
}  // namespace clip_lora::testing
