#include <gtest/gtest.h>
#include <signal.h>

#include <iostream>
#include <set>

#include "cli/fault_harness.hpp"

namespace clip_lora::testing {
namespace {

// A few moments and changes of files, so that they take seconds; tests/slow/kill_test.cpp has many.

TEST(Faults, KillsAtRandomMomentsLoseNothing) {
  const std::set<std::string> written_as_others = {"embed f.npy", "export openai", "export openclip",
                                                   "export safetensors"};
  const FaultCommands commands;
  std::uint32_t seed = 1;
  for (const auto& command : commands.all()) {
    if (written_as_others.contains(command.name)) continue;
    Disturbed disturbed(commands, command);
    std::cout << row_of(command, "SIGKILL", disturbed.signals(SIGKILL, 3, 3, seed++)) << std::endl;
  }
}

TEST(Faults, KillsAndFullDisksAtAChangeOfFilesLoseNothing) {
  const FaultCommands commands;
  std::uint32_t seed = 1;
  for (const char* name : {"train anew", "predict, move", "embed f.npy", "export hf", "report"}) {
    const FaultCommand& command = commands.named(name);
    Disturbed disturbed(commands, command);
    const auto killed = some_of(disturbed.changes(), 1, seed);
    const auto full = some_of(disturbed.changes_that_need_room(), 1, seed + 1);
    std::cout << row_of(command, "within", disturbed.kills_at(killed, true)) << "\n"
              << row_of(command, "disk full", disturbed.full_disks_at(full)) << std::endl;
    seed += 2;
  }
}

}  // namespace
}  // namespace clip_lora::testing
