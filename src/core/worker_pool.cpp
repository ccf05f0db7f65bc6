#include "clip_lora/core/worker_pool.hpp"

#include <cassert>
#include <exception>
#include <string>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"

namespace clip_lora {

WorkerPool::WorkerPool(int workers) {
  assert(workers >= 1);
  threads_.reserve(static_cast<std::size_t>(workers));
  try {
    for (int i = 0; i < workers; ++i) threads_.emplace_back(&WorkerPool::work, this);
  } catch (const std::exception& error) {  // a limit on threads or on memory
    const std::string reason = "of " + std::to_string(workers) + " worker threads only " +
                               std::to_string(threads_.size()) + " could be started: " + error.what();
    if (threads_.empty()) throw Error(reason + " (hint: raise the limit on processes or on memory)");
    log_warning(reason);
  }
}

WorkerPool::~WorkerPool() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::future<void> WorkerPool::submit(std::function<void()> task) {
  std::packaged_task<void()> packaged(std::move(task));
  std::future<void> future = packaged.get_future();
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(packaged));
  }
  wake_.notify_one();
  return future;
}

void WorkerPool::work() {
  while (true) {
    std::packaged_task<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

}  // namespace clip_lora
