#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

#include "clip_lora/core/parallel.hpp"

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

TEST(HardwareWorkers, AreAtLeastOne) { EXPECT_GE(hardware_workers(), 1); }

}  // namespace
}  // namespace clip_lora
