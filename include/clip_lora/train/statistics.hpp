#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace clip_lora::train {

/// What repetitions of one experiment say together.
struct Summary {
  std::size_t count = 0;
  double mean = 0.0;                ///< 0 of nothing
  std::optional<double> deviation;  ///< the sample's standard deviation (N − 1); nothing of fewer than two
};

Summary summarise(const std::vector<double>& values);

/// 2 / (1/base + 1/new): base-to-new protocols' one figure of two accuracies (at least 0). 0 where one of
/// them is.
double harmonic_mean(double base, double new_classes);

/// Two classifiers on the same pictures.
struct PairedCounts {
  std::int64_t both_right = 0;
  std::int64_t only_first = 0;   ///< right by the first alone
  std::int64_t only_second = 0;  ///< right by the second alone
  std::int64_t both_wrong = 0;

  std::int64_t total() const { return both_right + only_first + only_second + both_wrong; }
};

/// McNemar's test of whether the two are right equally often.
struct McNemar {
  bool exact = true;       ///< by the binomial distribution; else by χ² with one degree of freedom
  double statistic = 0.0;  ///< χ² with Edwards' continuity correction, (|b − c| − 1)² / (b + c); 0 if exact
  double p_value = 1.0;     ///< two-sided
  double difference = 0.0;  ///< accuracy of the second less that of the first, percentage points
  double margin = 0.0;      ///< half of the difference's 95 % interval (Wald, of paired proportions)
};

/// Exact where fewer than 25 pictures are decided differently. McNemar, Psychometrika 12, 1947; Edwards,
/// Psychometrika 13, 1948.
McNemar mcnemar(const PairedCounts& counts);

/// A point of a curve.
struct CurvePoint {
  double x = 0.0;
  double y = 0.0;
};

/// At most `bins` points for `points` (ascending x): the means of x and y in equally wide parts of the range
/// of x. What is not finite is left out.
std::vector<CurvePoint> binned_means(const std::vector<CurvePoint>& points, std::size_t bins);

}  // namespace clip_lora::train
