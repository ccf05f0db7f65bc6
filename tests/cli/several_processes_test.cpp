// One run in several processes, over Gloo.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/close.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/free_port.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Flags = std::map<std::string, std::string>;

class SeveralProcesses : public ::testing::Test {
 protected:
  /// The program in `processes` processes of this machine, by the script.
  std::vector<std::string> launched(int processes, const Flags& changes) const {
    std::vector<std::string> words = {"--processes", std::to_string(processes)};
    for (const auto& word : arguments(changes)) words.push_back(word);
    return words;
  }
  Outcome launch(int processes, const Flags& changes = {}) const {
    return run_program(launched(processes, changes), kScript);
  }

  std::vector<std::string> arguments(Flags changes) const {
    changes.insert({{"--workers", "1"}, {"--device", "cpu"}});
    return task_.arguments(changes);
  }

  /// One of two processes, started as a launcher does.
  struct Worker {
    Worker(int rank, const std::vector<std::string>& arguments)
        : rank("RANK", std::to_string(rank)), program(arguments) {}

    EnvironmentVariable rank;
    Program program;
  };
  std::unique_ptr<Worker> worker(int rank, const Flags& changes = {}) const {
    return std::make_unique<Worker>(rank, arguments(changes));
  }

  fs::path result_folder() const { return task_.result_folder(); }
  fs::path checkpoint() const { return result_folder() / "checkpoint.safetensors"; }

  /// The losses of all iterations.
  std::vector<double> losses() const {
    std::istringstream file(read_bytes(result_folder() / "metrics.jsonl"));
    std::vector<double> losses;
    for (std::string line; std::getline(file, line);) {
      const json entry = json::parse(line);
      if (entry.contains("loss")) losses.push_back(entry.at("loss"));
    }
    return losses;
  }

  json results() const { return json::parse(read_bytes(result_folder() / "results.json")); }

  /// Until the first checkpoint is there.
  void wait_for_checkpoint() const {
    for (int waited_ms = 0; !fs::exists(checkpoint()) && waited_ms < 120'000; waited_ms += 5)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }

  static constexpr const char* kScript = CLIP_LORA_SOURCE_DIR "/scripts/launch_multi_gpu.sh";

  const SmallTask task_;
  const EnvironmentVariable program_{"CLIP_LORA", CLIP_LORA_PROGRAM};
  // More threads than cores wait for each other, spinning.
  const EnvironmentVariable threads_{"OMP_NUM_THREADS", "1"};
};

/// Of two processes that are started one by one.
class TwoWorkers : public SeveralProcesses {
 protected:
  const EnvironmentVariable size_{"WORLD_SIZE", "2"};
  const EnvironmentVariable address_{"MASTER_ADDR", "127.0.0.1"};
  const EnvironmentVariable port_{"MASTER_PORT", std::to_string(free_port())};
};

void expect_equal_losses(const std::vector<double>& losses, const std::vector<double>& expected) {
  ASSERT_EQ(losses.size(), expected.size());
  for (std::size_t i = 0; i < losses.size(); ++i)
    EXPECT_NEAR(losses[i], expected[i], 1e-4 * expected[i]) << i;
}

TEST_F(SeveralProcesses, TrainWhatOneTrainsAndWriteItOnce) {
  const Flags flags = {{"--log_every", "1"},
                       {"--n_iters", "9"},
                       {"--eval_every", "4"},
                       {"--select", "best"},
                       {"--batch_size", "5"}};
  const Outcome alone = run_program(arguments(flags));
  ASSERT_EQ(alone.exit_code, 0) << alone.errors;
  const std::vector<double> expected = losses();
  ASSERT_EQ(expected.size(), 9U);
  EXPECT_FALSE(results().contains("processes"));
  for (const int processes : {2, 3}) {
    fs::remove_all(task_.save_path());
    const Outcome outcome = launch(processes, flags);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
    expect_equal_losses(losses(), expected);
    EXPECT_EQ(results().at("processes"), processes);
    EXPECT_THAT(outcome.line("processes"), HasSubstr(std::to_string(processes)));
    EXPECT_EQ(outcome.line("zero-shot"), alone.line("zero-shot"));
    EXPECT_EQ(outcome.output.find("adapted "), outcome.output.rfind("adapted ")) << "one process prints";
    EXPECT_EQ(outcome.errors, "");
  }
}

TEST_F(SeveralProcesses, TrainPairsToTheSameAdapter) {
  const Flags flags = {{"--method", "r_adapter"},
                       {"--n_iters", "9"},
                       {"--warmup", "0"},
                       {"--lr", "0.001"},
                       {"--log_every", "1"}};
  const auto adapter = [&] {
    return io::read_safetensors(result_folder() / "lora_weights.safetensors").tensors;
  };
  const Outcome alone = run_program(arguments(flags));
  ASSERT_EQ(alone.exit_code, 0) << alone.errors;
  const std::vector<double> expected_losses = losses();
  const auto expected = adapter();
  ASSERT_FALSE(expected.empty());
  fs::remove_all(task_.save_path());
  const Outcome outcome = launch(2, flags);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  expect_equal_losses(losses(), expected_losses);
  // Adam's first steps are of equal size whatever the gradient's: where that is next to nothing, rounding
  // decides.
  for (const auto& [name, tensor] : adapter())
    EXPECT_TRUE(close_in_norm(tensor, expected.at(name), 1e-2)) << name;
}

TEST_F(SeveralProcesses, RefuseWhatCannotBeShared) {
  const Outcome small = launch(2, {{"--batch_size", "1"}});
  EXPECT_EQ(small.exit_code, 2);
  EXPECT_THAT(small.errors,
              HasSubstr("--batch_size 1: expected at least 2, since it is shared out to 2 processes"));
  const Outcome evaluation = launch(2, {{"--eval_only", ""}});
  EXPECT_EQ(evaluation.exit_code, 2);
  EXPECT_THAT(evaluation.errors, HasSubstr("--eval_only: there is nothing to train"));
  std::vector<std::string> words = launched(2, {{"--method", "zero_shot"}});
  for (const char* flag : {"--n_iters", "--batch_size"}) {  // which nothing to train refuses by themselves
    const auto found = std::ranges::find(words, flag);
    words.erase(found, found + 2);
  }
  const Outcome untrained = run_program(words, kScript);
  EXPECT_EQ(untrained.exit_code, 2);
  EXPECT_THAT(untrained.errors, HasSubstr("--method zero_shot: there is nothing to train"));
  const Outcome device = launch(2, {{"--device", "cuda:1"}});
  EXPECT_EQ(device.exit_code, 2);
  EXPECT_THAT(device.errors, HasSubstr("LOCAL_RANK"));
}

TEST_F(SeveralProcesses, EndInOrderAtASignalAndGoOn) {
  // Once mostly between iterations, once mostly while the first process looks at validation images.
  for (const char* eval_every : {"0", "1"}) {
    fs::remove_all(task_.save_path());
    const Flags flags = {{"--n_iters", "300"},
                         {"--eval_every", eval_every},
                         {"--checkpoint_every", "20"},
                         {"--log_every", "1"}};
    Program program(launched(2, flags), kScript);
    wait_for_checkpoint();
    program.send(SIGTERM);
    const Outcome stopped = program.wait();
    EXPECT_EQ(stopped.exit_code, 128 + SIGTERM) << stopped.errors;
    EXPECT_THAT(stopped.errors, AllOf(HasSubstr("interrupted"), HasSubstr("--resume")));
    EXPECT_FALSE(fs::exists(result_folder() / "results.json"));
    Flags again = flags;
    again["--resume"] = "";
    const Outcome resumed = launch(2, again);
    ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
    EXPECT_THAT(resumed.line("resumed"), HasSubstr("of 300 iterations"));
    const std::vector<double> losses_of_both = losses();
    fs::remove_all(task_.save_path());
    ASSERT_EQ(launch(2, flags).exit_code, 0);
    expect_equal_losses(losses_of_both, losses());
  }
}

TEST_F(TwoWorkers, WithOtherSettingsAreRefusedWithTheDifference) {
  const auto first = worker(0);
  const auto second = worker(1, {{"--lr", "0.125"}, {"--r", "4"}});
  for (const auto& outcome : {first->program.wait(), second->program.wait()}) {
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.errors, AllOf(HasSubstr("process 1 of 2 has other settings than process 0"),
                                      HasSubstr("--lr is '0.125', there '0.0002'"),
                                      HasSubstr("--r is '4', there '2'"), Not(HasSubstr("--seed"))));
    EXPECT_EQ(outcome.line("zero-shot"), "") << "it is said before anything is computed";
  }
}

TEST_F(TwoWorkers, OfWhichOneIsKilledEndAndGoOn) {
  const Flags flags = {{"--n_iters", "2000"}, {"--checkpoint_every", "20"}};
  const auto first = worker(0, flags);
  const auto second = worker(1, flags);
  wait_for_checkpoint();
  second->program.send(SIGKILL);
  const auto killed = std::chrono::steady_clock::now();
  const Outcome outcome = first->program.wait();
  // Seconds, on a machine with other work too; a collective's time limit is five minutes.
  EXPECT_LT(std::chrono::steady_clock::now() - killed, std::chrono::minutes(1));
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("process 1 of 2, on "), HasSubstr("its process has ended"),
                                    HasSubstr("--resume")));
  Flags again = flags;
  again["--resume"] = "";
  const Outcome resumed = launch(2, again);
  ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
  EXPECT_THAT(resumed.line("resumed"), HasSubstr("of 2,000 iterations"));
}

TEST_F(TwoWorkers, LearnWhyTheOtherOneGivesUp) {
  // Only the second process looks at a data set that is not there.
  const auto first = worker(0);
  const auto second = worker(1, {{"--root_path", (task_ / "nowhere").string()}});
  EXPECT_EQ(second->program.wait().exit_code, 3);
  const Outcome outcome = first->program.wait();
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("process 1 of 2, on "), HasSubstr("nowhere")));
}

TEST_F(SeveralProcesses, ThatDivergeEndAndKeepTheLastAdapter) {
  const Outcome outcome = launch(2, {{"--lr", "1e20"}});
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_THAT(outcome.errors,
              HasSubstr("clip_lora: the training has diverged: the loss is nan at iteration 2 of 4"));
  EXPECT_TRUE(fs::exists(result_folder() / "lora_weights.last_good.pt"));
  EXPECT_FALSE(fs::exists(result_folder() / "lora_weights.pt"));
}

}  // namespace
}  // namespace clip_lora::testing
