#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "clip_lora/train/statistics.hpp"

namespace clip_lora::train {
namespace {

TEST(Summary, IsTheMeanAndTheSamplesStandardDeviation) {
  const Summary summary = summarise({34.06, 45.19, 45.20});
  EXPECT_EQ(summary.count, 3U);
  EXPECT_NEAR(summary.mean, 41.48333333333333, 1e-12);
  EXPECT_NEAR(*summary.deviation, 6.4287972, 1e-6);  // Python's statistics.stdev
}

TEST(Summary, OfOneValueHasNoDeviationAndOfNoneNoMeanEither) {
  EXPECT_EQ(summarise({7.0}).mean, 7.0);
  EXPECT_EQ(summarise({7.0}).deviation, std::nullopt);
  EXPECT_EQ(summarise({}).count, 0U);
  EXPECT_EQ(summarise({}).mean, 0.0);
}

TEST(HarmonicMean, IsPythonsAndZeroWhereOneIsZero) {
  EXPECT_NEAR(harmonic_mean(82.69, 63.22), 71.65597697210609, 1e-12);  // statistics.harmonic_mean
  EXPECT_EQ(harmonic_mean(50.0, 50.0), 50.0);
  EXPECT_EQ(harmonic_mean(0.0, 80.0), 0.0);
  EXPECT_EQ(harmonic_mean(80.0, 0.0), 0.0);
  EXPECT_EQ(harmonic_mean(0.0, 0.0), 0.0);
}

TEST(McNemarTest,
     IsExactForFewDifferences) {  // Python: 2 * sum(math.comb(13, k) for k in range(4)) / 2 ** 13
  const McNemar test = mcnemar({.both_right = 50, .only_first = 3, .only_second = 10, .both_wrong = 7});
  EXPECT_TRUE(test.exact);
  EXPECT_NEAR(test.p_value, 0.092285156250, 1e-12);
  EXPECT_NEAR(test.difference, 10.0, 1e-12);  // 7 of 70
}

TEST(McNemarTest, UsesTheContinuityCorrectionForMany) {
  // Fleiss, Statistical Methods for Rates and Proportions: b = 15, c = 35 give (|15 − 35| − 1)² / 50 = 7.22.
  const McNemar test = mcnemar({.both_right = 100, .only_first = 15, .only_second = 35, .both_wrong = 50});
  EXPECT_FALSE(test.exact);
  EXPECT_NEAR(test.statistic, 7.22, 1e-12);
  EXPECT_NEAR(test.p_value, 0.0072096, 1e-6);
  EXPECT_NEAR(test.margin, 6.7895, 1e-3);  // 196 · √(50 − 400/200) / 200, with 1.95996 for 1.96
}

TEST(McNemarTest, EqualPredictionsDifferByNothing) {
  const McNemar test = mcnemar({.both_right = 5, .only_first = 0, .only_second = 0, .both_wrong = 1});
  EXPECT_EQ(test.p_value, 1.0);
  EXPECT_EQ(test.difference, 0.0);
  EXPECT_EQ(mcnemar({}).p_value, 1.0);
}

TEST(McNemarTest, AsManyEachWayIsNoDifference) {
  EXPECT_EQ(mcnemar({.only_first = 4, .only_second = 4}).p_value, 1.0);
  EXPECT_EQ(mcnemar({.only_first = 40, .only_second = 40}).p_value, 1.0);
}

TEST(BinnedMeans, KeepFewPointsAsTheyAre) {
  const auto points = binned_means({{1, 5}, {2, 4}}, 10);
  ASSERT_EQ(points.size(), 2U);
  EXPECT_EQ(points[1].y, 4.0);
}

TEST(BinnedMeans, AverageManyAndLeaveOutWhatIsNotFinite) {
  std::vector<CurvePoint> points;
  for (int i = 0; i < 1000; ++i) points.push_back({static_cast<double>(i), i % 2 == 0 ? 1.0 : 3.0});
  points[500].y = std::numeric_limits<double>::quiet_NaN();
  const auto means = binned_means(points, 10);
  ASSERT_EQ(means.size(), 10U);
  for (const auto& mean : means) EXPECT_NEAR(mean.y, 2.0, 0.02);
  EXPECT_NEAR(means.front().x, 49.5, 0.5);
}

}  // namespace
}  // namespace clip_lora::train
