#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "clip_lora/core/worker_pool.hpp"

namespace clip_lora {
namespace {

TEST(WorkerPool, WorksOffEveryTaskOnce) {
  for (const int workers : {1, 2, 7}) {
    WorkerPool pool(workers);
    EXPECT_EQ(pool.workers(), workers);
    std::vector<std::atomic<int>> visits(100);
    std::vector<std::future<void>> done;
    for (auto& count : visits) done.push_back(pool.submit([&count] { ++count; }));
    for (auto& future : done) future.get();
    for (const auto& count : visits) EXPECT_EQ(count, 1) << workers << " workers";
  }
}

TEST(WorkerPool, OneWorkerKeepsTheOrder) {
  std::vector<int> order;
  std::future<void> last;
  WorkerPool pool(1);
  for (int i = 0; i < 10; ++i) last = pool.submit([&order, i] { order.push_back(i); });
  last.get();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
}

TEST(WorkerPool, WorkersWorkAtTheSameTime) {
  WorkerPool pool(3);
  std::latch all_there(3);  // none of the three tasks can end before all have begun
  std::vector<std::future<void>> done;
  for (int i = 0; i < 3; ++i) done.push_back(pool.submit([&all_there] { all_there.arrive_and_wait(); }));
  for (auto& future : done) future.get();
}

TEST(WorkerPool, FutureHoldsWhatTheTaskThrowsAndTheWorkerGoesOn) {
  WorkerPool pool(1);
  auto failing = pool.submit([] { throw std::out_of_range("seven"); });
  auto next = pool.submit([] {});
  EXPECT_THROW(failing.get(), std::out_of_range);
  EXPECT_NO_THROW(next.get());
}

TEST(WorkerPool, EndWaitsForWhatHasBegun) {
  std::promise<void> begun;
  bool ended = false;
  {
    WorkerPool pool(1);
    pool.submit([&] {
      begun.set_value();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      ended = true;
    });
    begun.get_future().wait();
  }
  EXPECT_TRUE(ended);
}

TEST(WorkerPool, EndDropsWhatHasNotBegun) {
  std::future<void> last;
  {
    WorkerPool pool(1);
    for (int i = 0; i < 100'000; ++i) {  // 100 s of work: the end comes first
      last = pool.submit([] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
    }
  }
  EXPECT_THROW(last.get(), std::future_error);
}

}  // namespace
}  // namespace clip_lora
