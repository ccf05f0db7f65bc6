#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/worker_pool.hpp"
#include "support/few_threads.hpp"

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

constexpr int kTooMany = 1000;

[[noreturn]] void work_with_too_many_threads() {
  testing::limit_further_memory(256U << 20);
  WorkerPool pool(kTooMany);
  std::atomic<int> visits{0};
  std::vector<std::future<void>> done;
  for (int i = 0; i < 100; ++i) done.push_back(pool.submit([&visits] { ++visits; }));
  for (auto& future : done) future.get();
  std::_Exit(pool.workers() < kTooMany && visits == 100 ? 0 : 1);
}

[[noreturn]] void begin_without_memory_for_a_thread() {
  testing::limit_further_memory(1U << 20);
  try {
    const WorkerPool pool(1);
  } catch (const Error&) {
    std::_Exit(0);
  }
  std::_Exit(1);
}

TEST(WorkerPoolDeathTest, GoesOnWithTheThreadsThatCouldBeStarted) {
  if (!testing::kMayLimitMemory) GTEST_SKIP() << "a sanitizer needs its memory";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(work_with_too_many_threads(), ::testing::ExitedWithCode(0), "of 1000 worker threads only");
}

TEST(WorkerPoolDeathTest, ThrowsIfNoThreadCouldBeStarted) {
  if (!testing::kMayLimitMemory) GTEST_SKIP() << "a sanitizer needs its memory";
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // a fresh process: it has no stack left from other threads
  EXPECT_EXIT(begin_without_memory_for_a_thread(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace clip_lora
