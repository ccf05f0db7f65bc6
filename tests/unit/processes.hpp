#pragma once

#include <ATen/Parallel.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/free_port.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::testing {

/// What a process does in the group; what it returns is read by the test.
using Part = std::function<std::string(engine::ProcessGroup&)>;

/// The processes of one run, children of this one, which itself must never use LibTorch's threads.
class Processes {
 public:
  explicit Processes(int size) : size_(size), port_(std::to_string(free_port())) {}
  ~Processes() {
    for (const pid_t process : children_) ::kill(process, SIGKILL);
    for (const pid_t process : children_) ::waitpid(process, nullptr, 0);
  }
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  void start(int rank, const Part& part, const engine::ProcessGroupOptions& options = {}) {
    const pid_t process = ::fork();
    if (process == 0) {
      at::set_num_threads(1);  // more threads than cores wait for each other, spinning
      const EnvironmentVariable variables[] = {
          {"WORLD_SIZE", std::to_string(size_)}, {"RANK", std::to_string(rank)}, {"LOCAL_RANK", std::nullopt},
          {"LOCAL_WORLD_SIZE", std::nullopt},    {"MASTER_ADDR", "127.0.0.1"},   {"MASTER_PORT", port_}};
      write_bytes(result_file(::getpid()), result_of(part, options));
      ::_exit(0);
    }
    children_.push_back(process);
  }

  void start_all(const Part& part, const engine::ProcessGroupOptions& options = {}) {
    for (int rank = 0; rank < size_; ++rank) start(rank, part, options);
  }

  /// How many have a result by now; also for parts to know.
  std::int64_t results() const {
    return std::distance(std::filesystem::directory_iterator(folder_.path()), {});
  }

  /// Of each process in the order of their start what its part returned, or the kind and message of what it
  /// threw; "" if it was killed.
  std::vector<std::string> wait() {
    std::vector<std::string> results;
    for (const pid_t process : children_) {
      ::waitpid(process, nullptr, 0);
      const auto file = result_file(process);
      results.push_back(std::filesystem::exists(file) ? read_bytes(file) : "");
    }
    children_.clear();
    return results;
  }

 private:
  static std::string result_of(const Part& part, const engine::ProcessGroupOptions& options) {
    try {
      engine::ProcessGroup group(*engine::read_process_environment(), at::kCPU, options);
      return part(group);
    } catch (const ConfigError& error) {
      return std::string("ConfigError: ") + error.what();
    } catch (const Error& error) {
      return std::string("Error: ") + error.what();
    } catch (const std::exception& error) {
      return std::string("bug: ") + error.what();
    }
  }

  std::filesystem::path result_file(pid_t process) const { return folder_ / std::to_string(process); }

  const int size_;
  const std::string port_;
  TemporaryFolder folder_;
  std::vector<pid_t> children_;
};

/// What the processes of a run of `size` return.
inline std::vector<std::string> run_processes(int size, const Part& part,
                                              const engine::ProcessGroupOptions& options = {}) {
  Processes processes(size);
  processes.start_all(part, options);
  return processes.wait();
}

}  // namespace clip_lora::testing
