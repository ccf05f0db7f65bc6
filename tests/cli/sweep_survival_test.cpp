#include "cli/sweep_survival.hpp"

#include <gtest/gtest.h>

namespace clip_lora::testing {
namespace {

TEST(SweepSurvival, OfSigkillsAtRandomMoments) {
  expect_to_survive_kills(/*seeds=*/3, /*iterations=*/100, /*kills=*/8, /*longest_ms=*/2000);
}

TEST(SweepSurvival, OfProcessesThatShareTheRuns) {
  expect_to_share(/*processes=*/4, /*seeds=*/4, /*kills=*/1);
}

TEST(SweepSurvival, OfAProcessThatLosesItsRunToAnother) { expect_the_late_to_step_back(); }

}  // namespace
}  // namespace clip_lora::testing
