#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/fault_commands.hpp"

namespace clip_lora::testing {

/// What disturbances of a command came to.
struct FaultTally {
  int tried = 0;
  int hit = 0;      ///< met the live process
  int lost = 0;     ///< files of before that were neither there nor replaced
  int damaged = 0;  ///< files under their final names that were neither as before nor as after
  int left = 0;     ///< temporary files that were there when the command had been done again
};

/// A row of the table, for the terminal.
std::string row_of(const FaultCommand& command, const std::string& fault, const FaultTally& tally);

/// One command and what it leaves when nothing disturbs it.
class Disturbed {
 public:
  /// Runs the command undisturbed to know. Fails the test if that fails.
  Disturbed(const FaultCommands& commands, const FaultCommand& command);

  /// Sends `signal_number` at `moments` random moments of the command's running time, each time on what the one
  /// before left behind. After every `period` of them the command is done again, and the place prepared anew.
  FaultTally signals(int signal_number, int moments, int period, std::uint32_t seed);

  /// The changes of files below the place that the command makes, in order, by the shim.
  const std::vector<std::string>& texts_of_changes();
  /// Their numbers, from 1: of all, and of those that a full disk stops.
  std::vector<std::size_t> changes();
  std::vector<std::size_t> changes_that_need_room();

  /// Kills the command at the given changes, numbered from 1: before the change, or with `tear` after half of it.
  FaultTally kills_at(const std::vector<std::size_t>& changes, bool tear);

  /// From the given changes on, what needs room fails as on a full disk. The command must end well or with one error
  /// that names a file and the reason, with all files as before or as after and nothing temporary left.
  FaultTally full_disks_at(const std::vector<std::size_t>& changes);

 private:
  std::vector<std::string> with_shim(std::size_t at, const std::string& fault) const;
  void look(const std::string& when, FaultTally& tally) const;
  void run_again(const std::string& when, FaultTally& tally) const;

  const FaultCommands& commands_;
  const FaultCommand& command_;
  Snapshot before_, after_;
  double seconds_ = 0.0;
  std::vector<std::string> changes_;
};

/// `count` of the numbers, drawn by `seed`, in their order; all if there are no more.
std::vector<std::size_t> some_of(std::vector<std::size_t> numbers, std::size_t count, std::uint32_t seed);

}  // namespace clip_lora::testing
