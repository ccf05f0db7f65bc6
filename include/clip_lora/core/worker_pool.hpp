#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>
#include <vector>

namespace clip_lora {

/// A fixed number of threads that work off tasks in the order in which they came.
class WorkerPool {
 public:
  /// workers ≥ 1.
  explicit WorkerPool(int workers);
  /// Waits for the tasks that have begun; the others are dropped, and their futures broken.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// The future holds what the task throws.
  std::future<void> submit(std::function<void()> task);

  int workers() const { return static_cast<int>(threads_.size()); }

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::packaged_task<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace clip_lora
