#include "cli/sweep_survival.hpp"

#include <gtest/gtest.h>

namespace clip_lora::testing {
namespace {

TEST(SweepSurvival, OfAHundredSigkillsAtRandomMoments) {
  expect_to_survive_kills(/*seeds=*/12, /*iterations=*/650, /*kills=*/100, /*longest_ms=*/3000);
}

TEST(SweepSurvival, OfTwoProcesses) { expect_to_share(/*processes=*/2, /*seeds=*/50, /*kills=*/5); }

TEST(SweepSurvival, OfEightProcesses) { expect_to_share(/*processes=*/8, /*seeds=*/50, /*kills=*/5); }

TEST(SweepSurvival, OfFiftyProcesses) { expect_to_share(/*processes=*/50, /*seeds=*/50, /*kills=*/5); }

}  // namespace
}  // namespace clip_lora::testing
