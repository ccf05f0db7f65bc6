#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "clip_lora/data/text_draws.hpp"

namespace clip_lora::data {
namespace {

TEST(DrawText, GivesTheNumbersOfItsDefinition) {
  // From the definition in Python's integers, whose SplitMix64 gives the published first number of state 0.
  const std::vector<std::int64_t> of_80 = {29, 75, 3, 62, 17, 61, 50, 19};
  const std::vector<std::int64_t> of_5 = {0, 0, 2, 1, 4, 0, 4, 4};
  for (std::size_t i = 0; i < of_80.size(); ++i) {
    const auto sample = static_cast<std::int64_t>(i);
    EXPECT_EQ(draw_text(1, sample, 80), of_80[i]);
    EXPECT_EQ(draw_text(std::numeric_limits<std::uint64_t>::max(), 1'000'000'000'000 + sample, 5), of_5[i]);
  }
}

TEST(DrawText, IsUniform) {
  constexpr std::int64_t kChoices = 80;
  constexpr std::int64_t kSamples = 80'000;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    std::vector<double> counts(kChoices);
    for (std::int64_t sample = 0; sample < kSamples; ++sample) {
      counts.at(static_cast<std::size_t>(draw_text(seed, sample, kChoices))) += 1.0;
    }
    double chi_squared = 0.0;
    const double expected = static_cast<double>(kSamples) / kChoices;
    for (const double count : counts) chi_squared += (count - expected) * (count - expected) / expected;
    EXPECT_LT(chi_squared, 79 + 5 * std::sqrt(2 * 79.0));  // five standard deviations above the mean
  }
}

TEST(DrawText, TellsSeedsAndNeighboursApart) {
  constexpr int kSamples = 50'000;
  int same_in_next_seed = 0;
  int same_in_next_sample = 0;
  for (std::int64_t sample = 0; sample < kSamples; ++sample) {
    const std::int64_t drawn = draw_text(1, sample, 5);
    same_in_next_seed += draw_text(2, sample, 5) == drawn ? 1 : 0;
    same_in_next_sample += draw_text(1, sample + 1, 5) == drawn ? 1 : 0;
  }
  EXPECT_NEAR(same_in_next_seed, kSamples / 5.0, 450);  // five standard deviations
  EXPECT_NEAR(same_in_next_sample, kSamples / 5.0, 450);
}

TEST(DrawText, OfOneTextIsThatText) {
  for (std::int64_t sample = 0; sample < 100; ++sample) EXPECT_EQ(draw_text(7, sample, 1), 0);
}

TEST(DrawText, OfNothingIsABug) {
  EXPECT_THROW(draw_text(1, 0, 0), c10::Error);
  EXPECT_THROW(draw_text(1, -1, 5), c10::Error);
}

}  // namespace
}  // namespace clip_lora::data
