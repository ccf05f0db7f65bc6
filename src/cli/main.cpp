#include <array>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>

#include "clip_lora/cli/commands.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/io/mapped_file.hpp"
#include "error_text.hpp"

namespace clip_lora::cli {
namespace {

struct Command {
  const char* name;
  int (*run)(const std::vector<std::string>& arguments);
  const char* summary;
};

constexpr std::array kCommands = {
    Command{"compare", compare_command, "says in what two runs differ, and whether that may be chance"},
    Command{"datasets", datasets_command, "which benchmarks are below a folder, and what is missing"},
    Command{"demo", demo_command, "draws a small data set and adapts a tiny CLIP to it"},
    Command{"embed", embed_command, "writes the image features of pictures"},
    Command{"export", export_command, "writes an adapter or an adapted CLIP for another program"},
    Command{"inspect", inspect_command, "says what a checkpoint or an adapter is"},
    Command{"predict", predict_command, "classifies pictures, and sorts them into folders"},
    Command{"report", report_command, "gathers results into a table and a page"},
    Command{"split", split_command, "splits class folders into train, val and test"},
    Command{"sweep", sweep_command, "trains an adapter for each combination of data sets, shots, seeds, …"},
};

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
  std::cerr << "clip_lora: " << error_text(error) << "\n";
  return exit_code;
}

/// What was printed may be what the command is for.
void require_printed() {
  errno = 0;
  if (std::cout.flush() && std::ferror(stdout) == 0) return;  // other streams print there, too
  throw ConfigError(std::string("cannot write standard output") +
                    (errno != 0 ? std::string(": ") + std::strerror(errno) : "; a part of it is missing"));
}

}  // namespace

std::string command_list() {
  constexpr std::size_t kNameWidth = 10;
  std::string lines;
  for (const auto& command : kCommands) {
    std::string name = command.name;
    name.resize(kNameWidth, ' ');
    lines += "  clip_lora " + name + command.summary + "\n";
  }
  return lines;
}

int main(const std::vector<std::string>& arguments) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is an error like a full disk
  io::name_files_cut_short();
  std::set_terminate(end_with_error);
  try {
    const int exit_code = dispatch(arguments);
    require_printed();
    return exit_code;
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
