#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <iostream>
#include <string>

#include "cli/fault_harness.hpp"

namespace clip_lora::testing {
namespace {

/// Each command by itself, so that several are disturbed at a time. Hours of runs in all, so only where
/// CLIP_LORA_KILLS=N asks for N moments and changes of each command; tests/cli/fault_test.cpp has a few always.
class Kills : public ::testing::TestWithParam<const char*> {
 protected:
  static int kills() {
    const char* number = std::getenv("CLIP_LORA_KILLS");
    return number == nullptr ? 0 : std::stoi(number);
  }

  void SetUp() override {
    if (kills() == 0) GTEST_SKIP() << "CLIP_LORA_KILLS is unset: a number of moments, e.g. 100";
  }
};

TEST_P(Kills, AtRandomMomentsLoseNothing) {
  const FaultCommands commands;
  const FaultCommand& command = commands.named(GetParam());
  Disturbed disturbed(commands, command);
  const FaultTally killed = disturbed.signals(SIGKILL, kills(), 10, 1);
  EXPECT_GT(killed.hit, 0) << command.name;
  std::cout << row_of(command, "SIGKILL", killed) << "\n"
            << row_of(command, "SIGTERM", disturbed.signals(SIGTERM, kills() / 5, 10, 2)) << "\n"
            << row_of(command, "SIGINT", disturbed.signals(SIGINT, kills() / 5, 10, 3)) << std::endl;
}

TEST_P(Kills, AtChangesOfFilesLoseNothing) {
  const FaultCommands commands;
  const FaultCommand& command = commands.named(GetParam());
  Disturbed disturbed(commands, command);
  const auto some = some_of(disturbed.changes(), static_cast<std::size_t>(kills()), 1);
  std::cout << row_of(command, "before each", disturbed.kills_at(some, false)) << "\n"
            << row_of(command, "within each", disturbed.kills_at(some, true)) << std::endl;
}

TEST_P(Kills, AFullDiskFromChangesOfFilesOnIsToldAndLosesNothing) {
  const FaultCommands commands;
  const FaultCommand& command = commands.named(GetParam());
  Disturbed disturbed(commands, command);
  const auto some = some_of(disturbed.changes_that_need_room(), static_cast<std::size_t>(kills()), 1);
  std::cout << row_of(command, "disk full", disturbed.full_disks_at(some)) << std::endl;
}

constexpr const char* kCommands[] = {
    "train",       "train anew",     "train, resumed",     "eval_only",     "cache_dir",
    "sweep",       "predict --out",  "predict, copy",      "predict, move", "embed f.safetensors",
    "embed f.npy", "export authors", "export safetensors", "export openai", "export onnx",
    "export peft", "export hf",      "export openclip",    "split",         "report"};

INSTANTIATE_TEST_SUITE_P(Each, Kills, ::testing::ValuesIn(kCommands), [](const auto& tested) {
  std::string name = tested.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
});

TEST(KillsOfAll, AreOfEveryCommandThatWrites) {
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    EXPECT_EQ(std::count(std::begin(kCommands), std::end(kCommands), command.name), 1)
        << "'" << command.name << "' is not in this file's list";
  }
  EXPECT_EQ(std::size(kCommands), commands.all().size());
}

}  // namespace
}  // namespace clip_lora::testing
