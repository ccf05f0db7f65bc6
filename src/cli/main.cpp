#include <array>
#include <exception>
#include <iostream>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"

namespace clip_lora::cli {
namespace {

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>& arguments);
};

constexpr std::array kCommands = {Command{"demo", demo_command}, Command{"export", export_command},
                                  Command{"inspect", inspect_command}};

constexpr int kOtherFailure = 1;
constexpr int kUsageFailure = 2;
constexpr int kDataFailure = 3;
constexpr int kCheckpointFailure = 4;
constexpr int kSignalBase = 128;

int dispatch(const std::vector<std::string>& arguments) {
  if (arguments.empty()) return run_command({"--help"});
  const std::string& first = arguments.front();
  if (first == "--version") {
    std::cout << "clip_lora " << kVersion << "\n";
    return 0;
  }
  if (first.starts_with('-')) return run_command(arguments);
  std::vector<std::string> names;
  for (const auto& command : kCommands) {
    if (first == command.name) return command.run({arguments.begin() + 1, arguments.end()});
    names.emplace_back(command.name);
  }
  throw ConfigError("unknown command '" + first + "': expected " + join_capped(names) + " or flags" +
                    did_you_mean(first, names));
}

int report(const std::exception& error, int exit_code) {
  std::cerr << "clip_lora: " << error.what() << "\n";
  return exit_code;
}

}  // namespace

int main(const std::vector<std::string>& arguments) {
  try {
    return dispatch(arguments);
  } catch (const ConfigError& error) {
    return report(error, kUsageFailure);
  } catch (const DataError& error) {
    return report(error, kDataFailure);
  } catch (const CheckpointError& error) {
    return report(error, kCheckpointFailure);
  } catch (const Interrupted& interrupted) {
    return report(interrupted, kSignalBase + interrupted.signal_number());
  } catch (const std::exception& error) {
    return report(error, kOtherFailure);
  }
}

}  // namespace clip_lora::cli
