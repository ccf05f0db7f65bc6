#include "sweep_worker.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <list>
#include <optional>
#include <system_error>
#include <thread>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/lease.hpp"
#include "error_text.hpp"
#include "retrieval_run.hpp"
#include "run_results.hpp"
#include "saved_run.hpp"
#include "sweep_failure.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// Another process has the run now.
class LeaseLost : public std::exception {};

std::string result_line(const RunResult& result, double seconds) {
  if (result.untouched_retrieval)
    return "adapted " + recall_text(result.retrieval.front().recall) + "   " + duration(seconds);
  const auto line = [](double zero_shot, double adapted) {
    return "zero-shot " + percent(zero_shot) + "   adapted " + percent(adapted) +
           gain_text(adapted, zero_shot);
  };
  std::string text = line(result.zero_shot->accuracy(), result.adapted.accuracy());
  if (!result.others.empty()) {
    const OtherResult mean = mean_of(result.others);
    text += "   " + mean.dataset + ": " + line(*mean.zero_shot_accuracy, mean.accuracies.front());
  }
  return text + "   " + duration(seconds);
}

/// The first line of a message.
std::string headline(const std::string& message) { return printable(message.substr(0, message.find('\n'))); }

class Worker {
 public:
  Worker(const SweepOptions& options, const SweepPlan& plan, std::unique_ptr<RunSession> session,
         SweepProgress& progress)
      : options_(options), plan_(plan), session_(std::move(session)), progress_(progress) {
    for (const auto& run : plan.runs) {
      if (!run.is_done) pending_.push_back({&run, std::nullopt});
    }
  }

  SweepOutcome work() {
    while (!pending_.empty()) {
      bool got_one = false;
      for (auto entry = pending_.begin(); entry != pending_.end();) {
        const Attempt attempt = try_run(*entry);
        got_one = got_one || attempt == Attempt::kWorked;
        entry =
            attempt == Attempt::kBusy || attempt == Attempt::kLost ? std::next(entry) : pending_.erase(entry);
      }
      if (!got_one && !pending_.empty()) wait();
    }
    remove_leftovers_of_others();
    return outcome_;
  }

 private:
  /// A run that is not known to be done.
  struct Pending {
    const PlannedRun* run;
    std::optional<io::LeaseSeeker> seeker;  // from the first try on
  };

  enum class Attempt {
    kWorked,   // done or failed, by this process
    kSettled,  // done or failed, by another
    kBusy,     // another is at work
    kLost,     // another is at work on what this one had begun
  };

  Attempt try_run(Pending& pending) {
    const PlannedRun& run = *pending.run;
    throw_if_interrupted();
    if (is_settled(run)) return Attempt::kSettled;
    make_folder(run.folder);
    if (!pending.seeker) pending.seeker.emplace(run.lease(), options_.lease());
    const auto lease = pending.seeker->try_acquire();
    if (!lease) {
      holder_ = pending.seeker->holder();
      return Attempt::kBusy;
    }
    if (is_settled(run)) return Attempt::kSettled;  // between the first look and the lease
    return execute(run, *lease);
  }

  /// A process that wanted a run's lease may have been killed after another had done the run.
  void remove_leftovers_of_others() const {
    for (const auto& run : plan_.runs) {
      std::error_code ignored;
      if (fs::exists(run.folder / kResultsFile, ignored)) remove_leftovers(run);
    }
  }

  static void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) throw ConfigError("cannot write '" + folder.string() + "': " + error.message());
  }

  /// Whether another process has done the run, or has failed at it since the plan was made.
  bool is_settled(const PlannedRun& run) {
    std::string unused;
    const bool is_done = state_of(run, unused) == RunState::kDone;
    const std::string failure = is_done ? std::string() : recorded_failure(run.folder);
    const bool has_failed = !failure.empty() && failure != run.failure;
    if (!is_done && !has_failed) return false;
    if (has_failed) ++outcome_.failed;
    progress_.finish(run);
    return true;
  }

  /// Throws what a run that was not begun would meet too: Interrupted, a full disk, a GPU that is out of
  /// order.
  Attempt execute(const PlannedRun& run, io::Lease& lease) {
    require_space(options_.run.output.save_path, bytes_per_run());
    io::remove_temporaries(run.folder, io::Abandoned::kOfAllButLive);
    const Stopwatch stopwatch;
    try {
      const RunResult result = run_with_lease(run, lease);
      forget_failure(run.folder);
      ++outcome_.done;
      progress_.finish(run);
      say("done", run, result_line(result, stopwatch.seconds()));
    } catch (const Interrupted& interrupted) {
      throw Interrupted(interrupted.signal_number(),
                        "run '" + run.run.label + "': " + interrupted.what() + progress_so_far());
    } catch (const LeaseLost&) {
      progress_.say("lost       " + printable(run.run.label) + "   another process has taken it over");
      return Attempt::kLost;
    } catch (const Error& error) {
      fail(run, error.what());
    } catch (const std::exception& error) {
      fail(run, error_text(error));
      recover(run);
    }
    return Attempt::kWorked;
  }

  RunResult run_with_lease(const PlannedRun& run, io::Lease& lease) {
    const RunObserver observer = {[&](std::int64_t iteration) {
                                    if (!lease.was_held()) throw LeaseLost();
                                    progress_.show(run, iteration);
                                  },
                                  [&] {
                                    if (!lease.is_held()) throw LeaseLost();
                                  }};
    progress_.show(run, 0);
    try {
      return session_->run(run.run.options, observer);
    } catch (const UnreadableCheckpoint& error) {
      say("anew", run, headline(error.what()));
    } catch (const OtherTrainingsCheckpoint&) {
      if (!options_.force) throw;
    }
    observer.before_saving();  // it is another process's checkpoint if the lease is
    remove_checkpoint(run.folder);
    return session_->run(run.run.options, observer);
  }

  std::uint64_t bytes_per_run() const {
    return plan_.bytes / std::max<std::uint64_t>(1, plan_.count_to_do());
  }

  void fail(const PlannedRun& run, const std::string& reason) {
    record_failure(run.folder, run.run.label, reason);
    ++outcome_.failed;
    progress_.finish(run);
    say("failed", run, headline(reason));
  }

  /// After an error that is none of the user's, e.g. of memory: what was kept may be spoilt, and so may the
  /// GPU.
  void recover(const PlannedRun& run) {
    session_ = std::make_unique<RunSession>();
    const at::Device device = parse_device(run.run.options.compute.device);
    if (device.is_cpu()) return;
    try {
      at::zeros({1}, at::TensorOptions(device)).item();
    } catch (const std::exception& error) {
      throw Error("the GPU cannot be used any more: " + headline(error.what()) + progress_so_far());
    }
  }

  void say(const std::string& what, const PlannedRun& run, const std::string& line) {
    std::string word = what;
    word.resize(11, ' ');
    progress_.say(word + printable(run.run.label) + "   " + line);
  }

  std::string progress_so_far() const {
    return " (" + std::to_string(progress_.finished()) + " of " + std::to_string(progress_.all()) +
           " runs are done; the same command goes on)";
  }

  void throw_if_interrupted() const {
    if (const int signal = pending_interrupt()) throw Interrupted(signal, "interrupted" + progress_so_far());
  }

  /// For what other processes do.
  void wait() {
    constexpr auto kPeriod = std::chrono::milliseconds(100);
    const std::chrono::steady_clock::duration longest = options_.lease().heartbeat;
    const auto until = std::chrono::steady_clock::now() +
                       std::min<std::chrono::steady_clock::duration>(longest, std::chrono::seconds(1));
    while (std::chrono::steady_clock::now() < until) {
      throw_if_interrupted();
      progress_.show_waiting("waiting for " + holder_);
      std::this_thread::sleep_for(kPeriod);
    }
  }

  const SweepOptions& options_;
  const SweepPlan& plan_;
  std::unique_ptr<RunSession> session_;
  SweepProgress& progress_;
  std::list<Pending> pending_;
  std::string holder_;  // of a lease that was not to be had
  SweepOutcome outcome_;
};

}  // namespace

SweepOutcome work(const SweepOptions& options, const SweepPlan& plan, std::unique_ptr<RunSession> session,
                  SweepProgress& progress) {
  return Worker(options, plan, std::move(session), progress).work();
}

}  // namespace clip_lora::cli
