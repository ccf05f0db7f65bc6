#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "clip_lora/core/parallel.hpp"
#include "support/few_threads.hpp"

namespace clip_lora {
namespace {

TEST(ParallelFor, VisitsEveryIndexOnceWithAnyNumberOfWorkers) {
  for (const int workers : {-1, 0, 1, 2, 7, 100}) {
    std::vector<std::atomic<int>> visits(50);
    parallel_for(visits.size(), workers, [&](std::size_t i) { ++visits[i]; });
    for (const auto& count : visits) EXPECT_EQ(count, 1) << workers << " workers";
  }
}

TEST(ParallelFor, DoesNothingForNoIndices) {
  parallel_for(0, 4, [](std::size_t) { FAIL(); });
}

TEST(ParallelFor, ThrowsTheBodysExceptionToTheCaller) {
  for (const int workers : {1, 4}) {
    EXPECT_THROW(parallel_for(20, workers,
                              [](std::size_t i) {
                                if (i == 7) throw std::out_of_range("seven");
                              }),
                 std::out_of_range);
  }
}

TEST(ParallelFor, HandsOutNoIndexAfterAFailure) {
  std::atomic<int> visits{0};
  EXPECT_ANY_THROW(parallel_for(1000, 1, [&](std::size_t i) {
    ++visits;
    if (i == 3) throw std::runtime_error("three");
  }));
  EXPECT_EQ(visits, 4);
}

[[noreturn]] void visit_with_too_many_threads() {
  testing::limit_further_memory(1U << 20);
  std::vector<std::atomic<int>> visits(1000);
  parallel_for(visits.size(), 1000, [&](std::size_t i) { ++visits[i]; });
  for (const auto& count : visits) {
    if (count != 1) std::_Exit(1);
  }
  std::_Exit(0);
}

TEST(ParallelForDeathTest, GoesOnWithoutThreadsThatCannotBeStarted) {
  if (!testing::kMayLimitMemory) GTEST_SKIP() << "a sanitizer needs its memory";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(visit_with_too_many_threads(), ::testing::ExitedWithCode(0), "");
}

TEST(HardwareWorkers, AreAtLeastOne) { EXPECT_GE(hardware_workers(), 1); }

}  // namespace
}  // namespace clip_lora
