#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

namespace clip_lora::engine {

/// A thread that gives signs of a process's life in the store of all, and looks at the others'.
class ProcessWatch {
 public:
  /// Waits until all processes are there. Throws ConfigError if the rank is taken, Error naming those that
  /// have not come within `start_timeout`.
  ProcessWatch(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
               std::chrono::milliseconds start_timeout);
  /// Tells the others that this process leaves.
  ~ProcessWatch();
  ProcessWatch(const ProcessWatch&) = delete;
  ProcessWatch& operator=(const ProcessWatch&) = delete;

  /// From now on the thread runs, and calls `on_loss` once if a process is found lost.
  void start(std::function<void()> on_loss);

  /// To be told of each collective, so that one that never comes to it can be named.
  void entered_collective() { ++collectives_; }

  /// "process 2 of 4, on alpha, is gone: <reason>", of a process that is lost; nothing while all are well.
  /// Costs next to nothing then.
  std::optional<std::string> loss() const;

  /// As loss(), to one who waits for keys of all, by rank: who has left without setting its own is lost.
  std::optional<std::string> loss_before(const std::vector<std::string>& keys);

  /// As loss(), after a collective has failed because of `error`: looks for eight seconds for the process
  /// that is to blame, and says what is known if none is found.
  std::string explain(const std::string& error);

  /// Says to all that this process is lost, unless another one was before.
  void report(const std::string& reason);

  /// Tells the others that this process leaves, and looks at them no more.
  void leave();

  /// Waits until all others have left or ended, but not longer than `limit`.
  void wait_for_others(std::chrono::milliseconds limit);

 private:
  using Clock = std::chrono::steady_clock;
  struct Process {
    std::string tag;         ///< see process_tag()
    std::string host;        ///< its machine's name
    std::string life;        ///< its last sign of life
    Clock::time_point seen;  ///< when that was new
    std::int64_t collectives = 0;
    bool has_left = false;
  };
  struct Lost {
    int rank;
    std::string reason;
  };

  // What follows needs mutex_, but for the constructor's.
  void take_rank();
  void wait_for_all(std::chrono::milliseconds start_timeout);
  std::vector<std::string> missing() const;
  [[noreturn]] void give_up(const std::string& message);
  void give_sign();
  void look();
  void read_lives();
  std::optional<Lost> find_lost(std::chrono::milliseconds silence, bool leaving_counts) const;
  std::optional<Lost> find_late() const;
  void publish(const Lost& lost);
  void publish(const std::string& message);

  void run();  // the thread

  const c10::intrusive_ptr<c10d::Store> store_;
  const int rank_;
  const int size_;
  std::atomic<std::int64_t> collectives_ = 0;
  std::atomic<bool> is_lost_ = false;  // whether loss_ has a value
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Process> processes_;  // by rank
  std::int64_t signs_ = 0;
  bool store_is_lost_ = false;
  bool has_left_ = false;
  std::optional<std::string> loss_;
  std::function<void()> on_loss_;
  std::thread thread_;
};

}  // namespace clip_lora::engine
