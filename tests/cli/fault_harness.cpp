#include "cli/fault_harness.hpp"

#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <iomanip>
#include <numeric>
#include <random>
#include <set>
#include <sstream>
#include <thread>

#include "cli/program.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr const char* kEnvironmentProgram = "/usr/bin/env";

bool has_content(const Snapshot& snapshot, const std::string& content) {
  return std::any_of(snapshot.files.begin(), snapshot.files.end(),
                     [&](const auto& file) { return file.second == content; });
}

bool has_file(const Snapshot& snapshot, const std::string& name, const std::string& content) {
  const auto found = snapshot.files.find(name);
  return found != snapshot.files.end() && found->second == content;
}

/// Lines that are there before the training is done: whole ones, but for the last.
bool are_begun_lines(const std::string& name, const std::string& content) {
  if (!name.ends_with("metrics.jsonl")) return false;
  const std::size_t damaged = content.find("damaged: ");
  return damaged == std::string::npos || content.find('\n', damaged) + 1 == content.size();
}

bool is_damaged_checkpoint(const fs::path& file) {
  if (file.filename() != "checkpoint.safetensors") return false;
  try {
    io::read_safetensors(file);
    return false;
  } catch (const Error&) {
    return true;
  }
}

}  // namespace

std::string row_of(const FaultCommand& command, const std::string& fault, const FaultTally& tally) {
  std::ostringstream row;
  row << std::left << std::setw(20) << command.name << std::setw(14) << fault << std::right << std::setw(5)
      << tally.tried << " tried" << std::setw(5) << tally.hit << " hit" << std::setw(4) << tally.lost
      << " lost" << std::setw(4) << tally.damaged << " half" << std::setw(4) << tally.left << " left";
  return row.str();
}

Disturbed::Disturbed(const FaultCommands& commands, const FaultCommand& command)
    : commands_(commands), command_(command) {
  commands_.prepare(command_);
  before_ = snapshot_of(commands_.place());
  const auto begin = Clock::now();
  const Outcome outcome = run_program(command_.words);
  seconds_ = std::chrono::duration<double>(Clock::now() - begin).count();
  EXPECT_EQ(outcome.exit_code, 0) << command_.name << ": " << outcome.errors;
  after_ = snapshot_of(commands_.place());
  EXPECT_TRUE(after_.temporary.empty()) << command_.name << " left " << after_.temporary.front();
}

void Disturbed::look(const std::string& when, FaultTally& tally) const {
  const Snapshot now = snapshot_of(commands_.place());
  for (const auto& [name, content] : now.files) {
    if (has_file(before_, name, content) || has_file(after_, name, content)) continue;
    if (are_begun_lines(name, content)) continue;
    ++tally.damaged;
    ADD_FAILURE() << command_.name << ", " << when << ": '" << name << "' is neither as before nor as after";
  }
  for (const auto& name : now.temporary) {
    if (!is_damaged_checkpoint(commands_.place() / name)) continue;
    ++tally.damaged;
    ADD_FAILURE() << command_.name << ", " << when << ": '" << name << "' is damaged";
  }
  for (const auto& [name, content] : before_.files) {
    if (now.files.contains(name) || command_.may_go.contains(name)) continue;
    if (!after_.files.contains(name) && has_content(now, content)) continue;  // moved
    ++tally.lost;
    ADD_FAILURE() << command_.name << ", " << when << ": '" << name << "' is gone";
  }
  if (!command_.moves) return;
  std::multiset<std::string> contents;
  for (const auto& [name, content] : now.files) contents.insert(content);
  for (const auto& [name, content] : before_.files)
    EXPECT_EQ(contents.count(content), 1U) << command_.name << ", " << when << ": '" << name << "'";
}

void Disturbed::run_again(const std::string& when, FaultTally& tally) const {
  const Outcome outcome = run_program(command_.words_again);
  EXPECT_EQ(outcome.exit_code, 0) << command_.name << ", again after " << when << ": " << outcome.errors;
  const Snapshot now = snapshot_of(commands_.place());
  for (const auto& [name, content] : after_.files)
    EXPECT_TRUE(has_file(now, name, content))
        << command_.name << ", again after " << when << ": '" << name << "'";
  for (const auto& [name, content] : now.files)
    EXPECT_TRUE(after_.files.contains(name))
        << command_.name << ", again after " << when << ": '" << name << "'";
  for (const auto& name : now.temporary) {
    if (command_.keeps_temporaries) continue;
    ++tally.left;
    ADD_FAILURE() << command_.name << ", again after " << when << ": '" << name << "' was left";
  }
}

FaultTally Disturbed::signals(int signal_number, int moments, int period, std::uint32_t seed) {
  FaultTally tally;
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const std::string when = "signal " + std::to_string(signal_number);
  for (int moment = 0; moment < moments; ++moment) {
    if (moment % period == 0) commands_.prepare(command_);
    Program program(command_.words);
    // More of them late, when there is something to write.
    const double part = std::sqrt(uniform(generator));
    std::this_thread::sleep_for(std::chrono::duration<double>(part * seconds_));
    program.send(signal_number);
    const int exit_code = program.wait().exit_code;
    ++tally.tried;
    tally.hit += exit_code == -signal_number || exit_code == 128 + signal_number ? 1 : 0;
    EXPECT_TRUE(exit_code == 0 || exit_code == -signal_number || exit_code == 128 + signal_number)
        << command_.name << ": " << exit_code;
    look(when, tally);
    if (moment % period == period - 1 || moment == moments - 1) run_again(when, tally);
  }
  return tally;
}

std::vector<std::string> Disturbed::with_shim(std::size_t at, const std::string& fault) const {
  std::vector<std::string> words = {
      std::string("LD_PRELOAD=") + CLIP_LORA_FAULT_SHIM,
      "CLIP_LORA_FAULT_FOLDER=" + fs::canonical(commands_.place()).string() + "/",
      "CLIP_LORA_FAULT_LOG=" + (commands_.task() / "changes").string(),
      "CLIP_LORA_FAULT_AT=" + std::to_string(at),
      "CLIP_LORA_FAULT=" + fault,
      CLIP_LORA_PROGRAM};
  words.insert(words.end(), command_.words.begin(), command_.words.end());
  return words;
}

const std::vector<std::string>& Disturbed::texts_of_changes() {
  if (!changes_.empty()) return changes_;
  commands_.prepare(command_);
  fs::remove(commands_.task() / "changes");
  const Outcome outcome = run_program(with_shim(0, ""), kEnvironmentProgram);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  std::istringstream lines(read_bytes(commands_.task() / "changes"));
  for (std::string line; std::getline(lines, line);) changes_.push_back(line);
  EXPECT_FALSE(changes_.empty()) << command_.name << ": the shim saw nothing";
  return changes_;
}

std::vector<std::size_t> Disturbed::changes() {
  std::vector<std::size_t> numbers(texts_of_changes().size());
  std::iota(numbers.begin(), numbers.end(), std::size_t{1});
  return numbers;
}

std::vector<std::size_t> Disturbed::changes_that_need_room() {
  std::vector<std::size_t> numbers = changes();
  std::erase_if(numbers, [this](std::size_t number) {
    const std::string& text = texts_of_changes()[number - 1];
    return !text.starts_with("create") && !text.starts_with("write") && !text.starts_with("flush");
  });
  return numbers;
}

FaultTally Disturbed::kills_at(const std::vector<std::size_t>& changes, bool tear) {
  FaultTally tally;
  for (const std::size_t at : changes) {
    commands_.prepare(command_);
    const int exit_code = run_program(with_shim(at, tear ? "tear" : "kill"), kEnvironmentProgram).exit_code;
    ++tally.tried;
    tally.hit += exit_code == -SIGKILL ? 1 : 0;
    const std::string when =
        std::string(tear ? "within" : "before") + " '" + texts_of_changes().at(at - 1) + "'";
    look(when, tally);
    run_again(when, tally);
  }
  EXPECT_TRUE(changes.empty() || tally.hit > 0) << command_.name << ": no kill met the process";
  return tally;
}

FaultTally Disturbed::full_disks_at(const std::vector<std::size_t>& changes) {
  FaultTally tally;
  const std::string reason = std::strerror(ENOSPC);
  for (const std::size_t at : changes) {
    commands_.prepare(command_);
    const Outcome outcome = run_program(with_shim(at, std::to_string(ENOSPC)), kEnvironmentProgram);
    const std::string when = "full from '" + texts_of_changes().at(at - 1) + "'";
    ++tally.tried;
    tally.hit += outcome.exit_code != 0 ? 1 : 0;
    EXPECT_TRUE(outcome.exit_code == 0 || command_.full_disk_exit_codes.contains(outcome.exit_code))
        << command_.name << ", " << when << ": " << outcome.exit_code << " " << outcome.errors;
    if (outcome.exit_code != 0) {
      EXPECT_NE(outcome.errors.find(commands_.place().string()), std::string::npos)
          << command_.name << ", " << when << ": " << outcome.errors;
      EXPECT_NE(outcome.errors.find(reason), std::string::npos)
          << command_.name << ", " << when << ": " << outcome.errors;
    }
    look(when, tally);
    for (const auto& name : snapshot_of(commands_.place()).temporary) {
      if (name.ends_with("checkpoint.safetensors")) continue;
      ++tally.left;
      ADD_FAILURE() << command_.name << ", " << when << ": '" << name << "' was left";
    }
    run_again(when, tally);
  }
  return tally;
}

std::vector<std::size_t> some_of(std::vector<std::size_t> numbers, std::size_t count, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::shuffle(numbers.begin(), numbers.end(), generator);
  numbers.resize(std::min(numbers.size(), count));
  std::sort(numbers.begin(), numbers.end());
  return numbers;
}

}  // namespace clip_lora::testing
