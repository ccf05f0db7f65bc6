#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/dropout.hpp"
#include "ops/dropout_bits.hpp"
#include "support/close.hpp"
#include "support/mask_statistics.hpp"

namespace clip_lora::testing {
namespace {

at::Tensor state(std::int64_t seed, std::int64_t iteration) {
  return at::tensor({seed, iteration}, at::kLong);
}

void expect_words(const ops::FourWords& words, std::uint32_t x, std::uint32_t y, std::uint32_t z,
                  std::uint32_t w) {
  EXPECT_EQ(words.x, x);
  EXPECT_EQ(words.y, y);
  EXPECT_EQ(words.z, z);
  EXPECT_EQ(words.w, w);
}

TEST(Philox, GivesThePublishedAnswers) {  // Random123's known-answer test of philox4x32-10
  constexpr std::uint32_t kOnes = 0xffffffff;
  expect_words(ops::philox({0, 0, 0, 0}, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8);
  expect_words(ops::philox({kOnes, kOnes, kOnes, kOnes}, kOnes, kOnes), 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
               0x6d5451fd);
  expect_words(ops::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0),
               0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1);
}

class MaskStatistics : public ::testing::TestWithParam<double> {};

TEST_P(MaskStatistics, AreThoseOfIndependentDraws) { expect_good_masks(GetParam(), at::kCPU); }

INSTANTIATE_TEST_SUITE_P(Rates, MaskStatistics, ::testing::Values(0.25, 0.1, 0.5, 0.99));

TEST(DropoutMasks, WithoutDropoutKeepEverythingAndNeedNoState) {
  const ops::Dropout none;
  EXPECT_EQ(none.keep(), 1.0);
  EXPECT_TRUE(identical(ops::dropout_masks(none, 2, 3, 9), at::ones({2, 3, 9})));
}

TEST(DropoutMasks, AreTheSameAgainAndForFewerMasks) {
  const ops::Dropout dropout = {0.1, state(5, 6), 1, 0, 0};
  const at::Tensor masks = ops::dropout_masks(dropout, 3, 50, 130);
  EXPECT_TRUE(identical(ops::dropout_masks(dropout, 3, 50, 130), masks));
  EXPECT_TRUE(identical(ops::dropout_masks(dropout, 2, 50, 130), masks.narrow(0, 0, 2)));
}

TEST(DropoutMasks, OfAChunkAreThoseOfItsRowsInTheWhole) {
  const at::Tensor whole = ops::dropout_masks({0.25, state(5, 6), 1, 0, 0}, 3, 60, 72);
  const at::Tensor chunk = ops::dropout_masks({0.25, state(5, 6), 1, 5, 40}, 3, 20, 72);
  EXPECT_TRUE(identical(chunk.narrow(1, 0, 5), whole.narrow(1, 0, 5)));
  EXPECT_TRUE(identical(chunk.narrow(1, 5, 15), whole.narrow(1, 45, 15)));
}

TEST(DropoutMasks, OfTheSmallestKeepRateAreNotEmpty) {
  const ops::Dropout dropout = {0.999999, state(1, 1), 0, 0, 0};
  EXPECT_EQ(dropout.keep(), 1.0 / 65536);
}

}  // namespace
}  // namespace clip_lora::testing
