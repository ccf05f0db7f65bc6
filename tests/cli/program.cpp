#include "cli/program.hpp"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <stdexcept>
#include <thread>

#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

/// This process's environment, less the GPUs.
std::vector<std::string> environment_without_gpus() {
  std::vector<std::string> variables = {"CUDA_VISIBLE_DEVICES="};
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string(*variable).starts_with("CUDA_VISIBLE_DEVICES=")) variables.emplace_back(*variable);
  }
  return variables;
}

/// As the system's calls want them; `words` must outlive the result.
std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

std::string Outcome::line(const std::string& word) const {
  const std::size_t begin = output.starts_with(word) ? 0 : output.find("\n" + word) + 1;
  if (begin == 0 && !output.starts_with(word)) return {};
  return output.substr(begin, output.find('\n', begin) - begin);
}

std::string adapted(const Outcome& outcome) {
  const std::string line = outcome.line("adapted");
  return line.substr(0, line.find('%') + 1);
}

Program::Program(const std::vector<std::string>& arguments, const std::string& executable) {
  std::vector<std::string> words = {executable};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = environment_without_gpus();
  constexpr int kWrite = O_WRONLY | O_CREAT | O_TRUNC;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, (folder_ / "output").c_str(), kWrite, 0600);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (folder_ / "errors").c_str(), kWrite, 0600);
  const int error = posix_spawn(&process_, executable.c_str(), &actions, nullptr, pointers(words).data(),
                                pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " + executable);
}

Program::~Program() {
  if (ended_) return;
  send(SIGKILL);
  waitpid(process_, &status_, 0);
}

void Program::send(int signal_number) const { kill(process_, signal_number); }

bool Program::wait_for_output(const std::string& text) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < deadline) {
    if (read_bytes(folder_ / "output").find(text) != std::string::npos) return true;
    ended_ = waitpid(process_, &status_, WNOHANG) == process_;
    if (ended_) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  send(SIGKILL);  // whoever waits for its end should not wait for long
  return false;
}

Outcome Program::wait() {
  if (!ended_) ended_ = waitpid(process_, &status_, 0) == process_;
  const int exit_code = WIFEXITED(status_) ? WEXITSTATUS(status_) : -WTERMSIG(status_);
  return {exit_code, read_bytes(folder_ / "output"), read_bytes(folder_ / "errors")};
}

Outcome run_program(const std::vector<std::string>& arguments, const std::string& executable) {
  return Program(arguments, executable).wait();
}

}  // namespace clip_lora::testing
