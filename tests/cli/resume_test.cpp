#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

/// A training that is long enough to be stopped in its middle, with looks at the validation images.
class Resume : public ::testing::Test {
 protected:
  using Flags = std::map<std::string, std::string>;

  std::vector<std::string> arguments(Flags changes = {}) const {
    changes.insert({{"--n_iters", "500"},
                    {"--workers", "1"},
                    {"--eval_every", "70"},
                    {"--select", "best"},
                    {"--checkpoint_every", "20"}});
    return task_.arguments(changes);
  }

  /// The program behind a line of the shell.
  std::vector<std::string> after(const std::string& line, const Flags& changes = {}) const {
    std::string command = line + "; exec '" CLIP_LORA_PROGRAM "'";
    for (const auto& word : arguments(changes)) command += " '" + word + "'";
    return {"-c", command};
  }

  fs::path checkpoint() const { return task_.result_folder() / "checkpoint.safetensors"; }
  std::string adapter() const { return read_bytes(task_.result_folder() / "lora_weights.pt"); }

  /// What metrics.jsonl says, less the speed.
  std::vector<json> metrics() const {
    std::istringstream file(read_bytes(task_.result_folder() / "metrics.jsonl"));
    std::vector<json> lines;
    for (std::string line; std::getline(file, line);) {
      lines.push_back(json::parse(line));
      lines.back().erase("images_per_second");
    }
    return lines;
  }

  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& file : fs::directory_iterator(task_.result_folder()))
      names.push_back(file.path().filename());
    return names;
  }

  /// Starts a training and stops it by a signal once its first checkpoint is there.
  Outcome stopped_by(int signal_number, const Flags& changes = {}) const {
    Program program(arguments(changes));
    for (int waited_ms = 0; !fs::exists(checkpoint()) && waited_ms < 60'000; waited_ms += 5)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    program.send(signal_number);
    return program.wait();
  }

  void expect_done_as(const std::string& whole_adapter, const std::vector<json>& whole_metrics) {
    EXPECT_EQ(adapter(), whole_adapter);
    EXPECT_EQ(metrics(), whole_metrics);
    EXPECT_THAT(files(),
                UnorderedElementsAre("lora_weights.pt", "config.json", "results.json", "metrics.jsonl"));
  }

  const SmallTask task_;
};

TEST_F(Resume, GoesOnToTheSameAdapterAfterEverySignal) {
  ASSERT_EQ(run_program(arguments()).exit_code, 0);
  const std::string whole_adapter = adapter();
  const std::vector<json> whole_metrics = metrics();
  ASSERT_EQ(whole_metrics.size(), 50U);
  fs::remove_all(task_.save_path());
  for (const int signal_number : {SIGTERM, SIGHUP, SIGINT, SIGKILL}) {
    const Outcome stopped = stopped_by(signal_number);
    if (signal_number == SIGKILL) {
      EXPECT_EQ(stopped.exit_code, -SIGKILL);
    } else {
      EXPECT_EQ(stopped.exit_code, 128 + signal_number);
      EXPECT_THAT(stopped.errors, AllOf(HasSubstr("interrupted after"), HasSubstr("--resume")));
    }
    EXPECT_FALSE(fs::exists(task_.result_folder() / "results.json"));
    const Outcome resumed = run_program(arguments({{"--resume", ""}}));
    ASSERT_EQ(resumed.exit_code, 0) << resumed.errors;
    EXPECT_THAT(resumed.line("resumed"), HasSubstr("of 500 iterations"));
    expect_done_as(whole_adapter, whole_metrics);
    fs::remove_all(task_.save_path());
  }
}

TEST_F(Resume, WithoutACheckpointBeginsAtTheBeginning) {
  const Outcome outcome = run_program(arguments({{"--resume", ""}, {"--n_iters", "3"}}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.line("resumed"), "");
}

TEST_F(Resume, RefusesACheckpointOfOtherSettingsAndShowsTheDifference) {
  stopped_by(SIGTERM);
  const std::string bytes = read_bytes(checkpoint());
  const Outcome outcome = run_program(arguments({{"--resume", ""}, {"--r", "4"}, {"--lr", "0.125"}}));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr(checkpoint().string()), HasSubstr("--r 2 (this run: 4)"),
                                    HasSubstr("--lr 0.0002 (this run: 0.125)")));
  EXPECT_EQ(outcome.line("zero-shot"), "") << "it is said before anything is computed";
  EXPECT_EQ(read_bytes(checkpoint()), bytes);
  const Outcome unlike = run_program(arguments({{"--resume", ""}, {"--workers", "2"}, {"--log_every", "0"}}));
  EXPECT_EQ(unlike.exit_code, 0) << "these have no part in the adapter: " << unlike.errors;
}

TEST_F(Resume, RefusesATruncatedCheckpointAndSaysWhatToDo) {
  stopped_by(SIGTERM);
  const std::string bytes = read_bytes(checkpoint());
  write_bytes(checkpoint(), bytes.substr(0, bytes.size() / 2));
  const Outcome outcome = run_program(arguments({{"--resume", ""}}));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr(checkpoint().string()), HasSubstr("without --resume")));
  EXPECT_EQ(run_program(arguments({{"--n_iters", "3"}})).exit_code, 0);
  EXPECT_FALSE(fs::exists(checkpoint())) << "a run that is done needs none";
}

TEST_F(Resume, WithoutTheFlagATrainingBeginsAnewAndSaysSo) {
  stopped_by(SIGTERM);
  const Outcome outcome = run_program(arguments());
  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("begins anew"), HasSubstr("--resume")));
}

TEST_F(Resume, AFullDiskLeavesTheOldCheckpointAndTheTrainingGoesOn) {
  stopped_by(SIGTERM);
  const std::string bytes = read_bytes(checkpoint());
  // As a disk that is full: files of more than 4 KiB cannot be written.
  const Outcome outcome = run_program(after("ulimit -f 4", {{"--resume", ""}}), "/bin/bash");
  EXPECT_EQ(outcome.exit_code, 2) << "the adapter cannot be written either";
  EXPECT_THAT(outcome.errors, HasSubstr("no checkpoint after iteration"));
  EXPECT_EQ(read_bytes(checkpoint()), bytes);
  EXPECT_THAT(files(), ElementsAre(Not(HasSubstr("tmp")), Not(HasSubstr("tmp"))));
  EXPECT_EQ(run_program(arguments({{"--resume", ""}})).exit_code, 0);
}

TEST_F(Resume, ATrainingUnderNohupOutlivesItsTerminal) {
  Program program(after("trap '' HUP"), "/bin/bash");
  for (int waited_ms = 0; !fs::exists(checkpoint()) && waited_ms < 60'000; waited_ms += 5)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  program.send(SIGHUP);
  EXPECT_EQ(program.wait().exit_code, 0);
}

TEST_F(Resume, AnInterruptedTrainingWithoutCheckpointsPutsEarlierMetricsBack) {
  const Flags settings = {{"--checkpoint_every", "0"}, {"--tensorboard", ""}};
  Flags shorter = settings;
  shorter["--n_iters"] = "30";
  ASSERT_EQ(run_program(arguments(shorter)).exit_code, 0);
  const std::vector<json> before = metrics();
  Program program(arguments(settings));
  ASSERT_TRUE(program.wait_for_output("after 70 of 500"));
  EXPECT_TRUE(fs::exists(task_.result_folder() / "metrics.jsonl.before"));
  program.send(SIGTERM);
  EXPECT_EQ(program.wait().exit_code, 128 + SIGTERM);
  EXPECT_EQ(metrics(), before);
  EXPECT_THAT(files(), UnorderedElementsAre("lora_weights.pt", "config.json", "results.json", "metrics.jsonl",
                                            "tensorboard"));
}

TEST_F(Resume, FlagsThatMakeNoSenseTogetherAreRefused) {
  const auto refused = [](const std::vector<std::string>& words) {
    std::vector<std::string> flags = {"--dataset", "dtd"};
    flags.insert(flags.end(), words.begin(), words.end());
    const Outcome outcome = run_program(flags);
    EXPECT_EQ(outcome.exit_code, 2);
    return outcome.errors;
  };
  EXPECT_THAT(refused({"--resume"}), HasSubstr("--resume needs --save_path"));
  EXPECT_THAT(refused({"--checkpoint_every", "9"}), HasSubstr("--checkpoint_every needs --save_path"));
  EXPECT_THAT(refused({"--tensorboard"}), HasSubstr("--tensorboard needs --save_path"));
  EXPECT_THAT(refused({"--checkpoint_every", "-1", "--save_path", "x"}), HasSubstr("at least 0"));
  EXPECT_THAT(refused({"--log_every", "-1"}), HasSubstr("at least 0"));
  EXPECT_THAT(refused({"--tensorboard", "--log_every", "0", "--save_path", "x"}), HasSubstr("--log_every"));
  EXPECT_THAT(refused({"--resume", "--eval_only", "--save_path", "x"}), HasSubstr("exclude"));
}

}  // namespace
}  // namespace clip_lora::testing
