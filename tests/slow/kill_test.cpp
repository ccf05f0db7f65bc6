#include <gtest/gtest.h>
#include <signal.h>

#include <iostream>

#include "cli/fault_harness.hpp"

namespace clip_lora::testing {
namespace {

TEST(Kills, AtAHundredMomentsOfEachCommandLoseNothing) {
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    std::cout << row_of(command, "SIGKILL", disturbed.signals(SIGKILL, 100, 10, 1)) << "\n"
              << row_of(command, "SIGTERM", disturbed.signals(SIGTERM, 20, 10, 2)) << "\n"
              << row_of(command, "SIGINT", disturbed.signals(SIGINT, 20, 10, 3)) << std::endl;
  }
}

TEST(Kills, AtEachChangeOfFilesOfEachCommandLoseNothing) {
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    const auto last = disturbed.changes().size();
    const auto all = some_of(last, 60, 1);
    std::cout << row_of(command, "before each", disturbed.kills_at(all, false)) << "\n"
              << row_of(command, "within each", disturbed.kills_at(all, true)) << std::endl;
  }
}

TEST(FullDisk, FromEachChangeOfFilesOfEachCommandOnIsToldAndLosesNothing) {
  const FaultCommands commands;
  for (const auto& command : commands.all()) {
    Disturbed disturbed(commands, command);
    const auto all = some_of(disturbed.changes().size(), 60, 1);
    std::cout << row_of(command, "disk full", disturbed.full_disks_at(all)) << std::endl;
  }
}

}  // namespace
}  // namespace clip_lora::testing
