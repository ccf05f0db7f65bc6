#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "cli/fault_harness.hpp"

// Hours of runs, so only where CLIP_LORA_KILLS=N asks for N moments and changes of each command;
// tests/cli/fault_test.cpp has a few always.
#define CLIP_LORA_NEEDS_KILLS() \
  if (kills() == 0) GTEST_SKIP() << "CLIP_LORA_KILLS is unset: a number of moments, e.g. 100"

namespace clip_lora::testing {
namespace {

int kills() {
  const char* number = std::getenv("CLIP_LORA_KILLS");
  return number == nullptr ? 0 : std::stoi(number);
}

TEST(Kills, AtRandomMomentsOfEachCommandLoseNothing) {
  CLIP_LORA_NEEDS_KILLS();
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    const FaultTally killed = disturbed.signals(SIGKILL, kills(), 10, 1);
    EXPECT_GT(killed.hit, 0) << command.name;
    std::cout << row_of(command, "SIGKILL", killed) << "\n"
              << row_of(command, "SIGTERM", disturbed.signals(SIGTERM, kills() / 5, 10, 2)) << "\n"
              << row_of(command, "SIGINT", disturbed.signals(SIGINT, kills() / 5, 10, 3)) << std::endl;
  }
}

TEST(Kills, AtChangesOfFilesOfEachCommandLoseNothing) {
  CLIP_LORA_NEEDS_KILLS();
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    const auto some = some_of(disturbed.changes(), static_cast<std::size_t>(kills()), 1);
    std::cout << row_of(command, "before each", disturbed.kills_at(some, false)) << "\n"
              << row_of(command, "within each", disturbed.kills_at(some, true)) << std::endl;
  }
}

TEST(FullDisk, FromChangesOfFilesOfEachCommandOnIsToldAndLosesNothing) {
  CLIP_LORA_NEEDS_KILLS();
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    const auto some = some_of(disturbed.changes_that_need_room(), static_cast<std::size_t>(kills()), 1);
    std::cout << row_of(command, "disk full", disturbed.full_disks_at(some)) << std::endl;
  }
}

}  // namespace
}  // namespace clip_lora::testing
