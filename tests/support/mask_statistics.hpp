#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "clip_lora/ops/dropout.hpp"

namespace clip_lora::testing {

/// Whether the share of ones in `draws` is `probability` within 4 standard errors of independent draws.
inline ::testing::AssertionResult has_share(const at::Tensor& draws, double probability) {
  const auto count = static_cast<double>(draws.numel());
  const double share = draws.sum(at::kDouble).item<double>() / count;
  const double error = std::sqrt(probability * (1 - probability) / count);
  if (std::abs(share - probability) <= 4 * error) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "share " << share << " of " << draws.numel() << " draws, expected "
                                       << probability << " ± " << 4 * error;
}

/// Whether two sets of draws, each a one with `probability`, are ones together as often as independent ones
/// are.
inline ::testing::AssertionResult are_independent(const at::Tensor& some, const at::Tensor& others,
                                                  double probability) {
  return has_share(some * others, probability * probability);
}

/// Keep rates of each mask, and independence of masks, streams, iterations, seeds, rows and columns: ≥ 10⁷
/// draws each.
inline void expect_good_masks(double rate, at::Device device) {
  constexpr std::int64_t kRows = 9800, kWidth = 1032;
  const auto state = [&](std::int64_t seed, std::int64_t iteration) {
    return at::tensor({seed, iteration}, at::kLong).to(device);
  };
  const ops::Dropout dropout = {rate, state(1, 7), 3, 0, 0};
  const double keep = dropout.keep();
  EXPECT_NEAR(keep, 1 - rate, 1.0 / 65536);
  const at::Tensor masks = ops::dropout_masks(dropout, 3, kRows, kWidth);
  for (std::int64_t mask = 0; mask < 3; ++mask) {
    EXPECT_TRUE(has_share(masks[mask], keep)) << "mask " << mask;
    EXPECT_TRUE(are_independent(masks[mask], masks[(mask + 1) % 3], keep))
        << "mask " << mask << " and the next";
  }
  const at::Tensor mask = masks[0];
  const auto other = [&](const ops::Dropout& changed) {
    return ops::dropout_masks(changed, 1, kRows, kWidth)[0];
  };
  EXPECT_TRUE(are_independent(mask, other({rate, state(1, 7), 4, 0, 0}), keep)) << "streams";
  EXPECT_TRUE(are_independent(mask, other({rate, state(1, 8), 3, 0, 0}), keep)) << "iterations";
  EXPECT_TRUE(are_independent(mask, other({rate, state(2, 7), 3, 0, 0}), keep)) << "seeds";
  for (const std::int64_t apart : {1, 2, 4}) {
    EXPECT_TRUE(are_independent(mask.narrow(0, apart, kRows - apart), mask.narrow(0, 0, kRows - apart), keep))
        << "rows " << apart << " apart";
  }
  for (const std::int64_t apart : {1, 8}) {  // within a byte of the drawn words, and from word to word
    EXPECT_TRUE(
        are_independent(mask.narrow(1, apart, kWidth - apart), mask.narrow(1, 0, kWidth - apart), keep))
        << "columns " << apart << " apart";
  }
}

}  // namespace clip_lora::testing
