#include "sweep_processes.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <torch/cuda.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/parallel.hpp"
#include "sweep_failure.hpp"

namespace clip_lora::cli {
namespace {

constexpr const char* kWorkerVariable = "CLIP_LORA_SWEEP_WORKER";
constexpr const char* kGpusVariable = "CUDA_VISIBLE_DEVICES";
constexpr int kPollMilliseconds = 200;
constexpr int kCannotStart = 127;

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts(1);
  for (const char character : text) {
    if (character == separator) {
      parts.emplace_back();
    } else {
      parts.back() += character;
    }
  }
  return parts;
}

/// The GPU `index` of those that this process sees, in the words of CUDA_VISIBLE_DEVICES.
std::string visible_name(std::size_t index) {
  const char* const visible = std::getenv(kGpusVariable);
  if (visible == nullptr || *visible == '\0') return std::to_string(index);
  return split(visible, ',').at(index);
}

std::vector<std::string> asked_gpus(const std::string& asked) {
  if (asked.empty()) return {};
  const auto count = static_cast<unsigned char>(torch::cuda::device_count());  // an int8, never negative
  if (count == 0) throw ConfigError("--gpus " + asked + ": no CUDA device was found");
  std::vector<std::string> gpus;
  if (asked == "all") {
    for (std::size_t i = 0; i < count; ++i) gpus.push_back(visible_name(i));
    return gpus;
  }
  for (const auto& word : split(asked, ',')) {
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), index);
    if (error != std::errc() || end != word.data() + word.size() || index >= count) {
      throw ConfigError("--gpus '" + asked + "': expected all, or numbers from 0 to " +
                        std::to_string(count - 1) + " with commas between");
    }
    gpus.push_back(visible_name(index));
  }
  return gpus;
}

/// A process of a sweep.
struct Child {
  pid_t process = 0;
  int output = -1;   // its standard output, -1 once it is closed
  std::string line;  // begun
  bool has_ended = false;
  int status = 0;
};

/// This process's environment, with `changes` as NAME=VALUE.
std::vector<std::string> environment_with(const std::vector<std::string>& changes) {
  std::vector<std::string> variables = changes;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    const std::string text = *variable;
    const std::string name = text.substr(0, text.find('=') + 1);
    const bool is_changed = std::any_of(changes.begin(), changes.end(),
                                        [&](const auto& change) { return change.starts_with(name); });
    if (!is_changed) variables.push_back(text);
  }
  return variables;
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

/// In a group of its own, so that Ctrl-C reaches it once, through this process, and at an end when this one
/// is.
Child start(std::vector<std::string> words, std::vector<std::string> environment) {
  const std::string program = this_program().string();
  words.insert(words.begin(), program);
  const auto arguments = pointers(words);
  const auto variables = pointers(environment);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw Error(std::string("cannot start a process: ") + std::strerror(errno));
  const pid_t process = ::fork();
  if (process == 0) {  // nothing but system calls from here on: other threads may have held locks
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    ::dup2(ends[1], STDOUT_FILENO);
    ::execve(program.c_str(), arguments.data(), variables.data());
    ::_exit(kCannotStart);
  }
  ::close(ends[1]);
  if (process < 0) {
    ::close(ends[0]);
    throw Error(std::string("cannot start a process: ") + std::strerror(errno));
  }
  Child child;
  child.process = process;
  child.output = ends[0];
  return child;
}

/// The processes of a sweep, as their parent sees them.
class Children {
 public:
  Children(const std::vector<std::string>& arguments, const std::vector<std::string>& gpus,
           SweepProgress& progress)
      : progress_(progress) {
    const int threads = std::max(1, hardware_workers() / static_cast<int>(gpus.size()));
    for (const auto& gpu : gpus) {
      std::vector<std::string> changes = {std::string(kWorkerVariable) + "=1"};
      if (!gpu.empty()) changes.push_back(std::string(kGpusVariable) + "=" + gpu);
      if (gpu.empty() && std::getenv("OMP_NUM_THREADS") == nullptr)
        changes.push_back("OMP_NUM_THREADS=" + std::to_string(threads));
      children_.push_back(start(arguments, environment_with(changes)));
    }
  }

  ~Children() {
    for (auto& child : children_) {
      if (child.output >= 0) ::close(child.output);
      if (child.has_ended) continue;
      ::kill(child.process, SIGTERM);
      ::waitpid(child.process, &child.status, 0);
    }
  }
  Children(const Children&) = delete;
  Children& operator=(const Children&) = delete;

  bool any_alive() const {
    return std::any_of(children_.begin(), children_.end(),
                       [](const Child& child) { return !child.has_ended; });
  }

  void pass_on(int signal_number) const {
    for (const auto& child : children_) {
      if (!child.has_ended) ::kill(child.process, signal_number);
    }
  }

  /// Prints what they said, waits a moment if that is nothing, and notices their ends.
  void look() {
    std::vector<pollfd> files;
    for (const auto& child : children_) files.push_back({child.output, POLLIN, 0});
    ::poll(files.data(), files.size(), kPollMilliseconds);
    for (std::size_t i = 0; i < children_.size(); ++i) {
      if (files[i].revents != 0) read(children_[i]);
      Child& child = children_[i];
      if (!child.has_ended)
        child.has_ended = ::waitpid(child.process, &child.status, WNOHANG) == child.process;
    }
  }

  /// What is remarkable about how they ended.
  std::vector<std::string> problems() const {
    std::vector<std::string> found;
    for (std::size_t i = 0; i < children_.size(); ++i) {
      const int status = children_[i].status;
      const std::string name = "process " + std::to_string(i) + " of the sweep ";
      if (WIFSIGNALED(status))
        found.push_back(name + "was killed by signal " + std::to_string(WTERMSIG(status)));
      if (WIFEXITED(status) && WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 1)
        found.push_back(name + "ended with exit code " + std::to_string(WEXITSTATUS(status)));
    }
    return found;
  }

 private:
  void read(Child& child) {
    char text[4096];
    const ssize_t size = ::read(child.output, text, sizeof text);
    if (size < 0 && errno == EINTR) return;
    if (size <= 0) {
      ::close(child.output);
      child.output = -1;  // poll() passes over it
      return;
    }
    for (const char character : std::string(text, static_cast<std::size_t>(size))) {
      if (character != '\n') {
        child.line += character;
        continue;
      }
      progress_.say(child.line);
      child.line.clear();
    }
  }

  SweepProgress& progress_;
  std::vector<Child> children_;
};

/// Finds out what the processes have done by what is there.
class Results {
 public:
  Results(const SweepPlan& plan, SweepProgress& progress) : progress_(progress) {
    for (const auto& run : plan.runs) {
      if (!run.is_done) pending_.push_back(&run);
    }
  }

  void look() {
    std::erase_if(pending_, [this](const PlannedRun* run) {
      std::string unused;
      const bool is_done = state_of(*run, unused) == RunState::kDone;
      const std::string failure = is_done ? std::string() : recorded_failure(run->folder);
      const bool has_failed = !failure.empty() && failure != run->failure;
      if (is_done || has_failed) progress_.finish(*run);
      outcome_.done += is_done ? 1 : 0;
      outcome_.failed += has_failed ? 1 : 0;
      return is_done || has_failed;
    });
  }

  bool is_complete() const { return pending_.empty(); }
  const SweepOutcome& outcome() const { return outcome_; }

 private:
  SweepProgress& progress_;
  std::vector<const PlannedRun*> pending_;
  SweepOutcome outcome_;
};

}  // namespace

std::vector<std::string> process_gpus(const SweepOptions& options) {
  std::vector<std::string> gpus = asked_gpus(options.gpus);
  const std::size_t wanted =
      options.processes == 0 ? gpus.size() : static_cast<std::size_t>(options.processes);
  if (gpus.empty() && wanted <= 1) return {};
  std::vector<std::string> places;
  for (std::size_t i = 0; i < wanted; ++i) places.push_back(gpus.empty() ? "" : gpus[i % gpus.size()]);
  return places;
}

bool is_worker_process() { return std::getenv(kWorkerVariable) != nullptr; }

SweepOutcome work_in_processes(const std::vector<std::string>& arguments,
                               const std::vector<std::string>& gpus, const SweepPlan& plan,
                               SweepProgress& progress) {
  Results results(plan, progress);
  Children children(arguments, gpus, progress);
  int passed_on = 0;
  const Stopwatch stopwatch;
  double next_look_seconds = 0.0;
  while (children.any_alive()) {
    children.look();
    if (stopwatch.seconds() >= next_look_seconds) {
      results.look();
      next_look_seconds = stopwatch.seconds() + 1.0;
    }
    progress.show_waiting("");
    if (const int signal = pending_interrupt(); signal != passed_on) {
      children.pass_on(signal);
      passed_on = signal;
    }
  }
  children.look();
  results.look();
  if (passed_on != 0) {
    throw Interrupted(passed_on, "interrupted (" + std::to_string(progress.finished()) + " of " +
                                     std::to_string(progress.all()) +
                                     " runs are done; the same command goes on)");
  }
  if (!results.is_complete()) throw Error("the sweep is not done: " + join_capped(children.problems()));
  for (const auto& problem : children.problems()) progress.say("warning    " + problem);
  return results.outcome();
}

}  // namespace clip_lora::cli
