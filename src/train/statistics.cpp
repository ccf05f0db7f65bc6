#include "clip_lora/train/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace clip_lora::train {
namespace {

constexpr std::int64_t kFewestForChiSquared = 25;  // pictures decided differently
constexpr double kNormal95 = 1.959963984540054;    // two-sided quantile of the normal distribution

/// 2 · P(X ≤ min(b, c)) of X ~ Binomial(b + c, ½), at most 1.
double binomial_p_value(std::int64_t b, std::int64_t c) {
  const std::int64_t n = b + c;
  double coefficient = 1.0;  // n over k
  double sum = 1.0;
  for (std::int64_t k = 1; k <= std::min(b, c); ++k) {
    coefficient *= static_cast<double>(n - k + 1) / static_cast<double>(k);
    sum += coefficient;
  }
  return std::min(1.0, 2.0 * std::ldexp(sum, -static_cast<int>(n)));
}

}  // namespace

Summary summarise(const std::vector<double>& values) {
  Summary summary{values.size(), 0.0, std::nullopt};
  if (values.empty()) return summary;
  const auto count = static_cast<double>(values.size());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  if (values.size() < 2) return summary;
  double squares = 0.0;
  for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
  summary.deviation = std::sqrt(squares / (count - 1.0));
  return summary;
}

double harmonic_mean(double base, double new_classes) {
  if (base == 0.0 || new_classes == 0.0) return 0.0;
  return 2.0 / (1.0 / base + 1.0 / new_classes);
}

McNemar mcnemar(const PairedCounts& counts) {
  const std::int64_t differing = counts.only_first + counts.only_second;
  McNemar test;
  if (counts.total() == 0) return test;
  const auto b = static_cast<double>(counts.only_first), c = static_cast<double>(counts.only_second);
  const auto total = static_cast<double>(counts.total());
  test.difference = 100.0 * (c - b) / total;
  test.margin = 100.0 * kNormal95 * std::sqrt(std::max(0.0, b + c - (c - b) * (c - b) / total)) / total;
  test.exact = differing < kFewestForChiSquared;
  if (test.exact) {
    test.p_value = binomial_p_value(counts.only_first, counts.only_second);
    return test;
  }
  const double excess = std::max(0.0, std::abs(b - c) - 1.0);
  test.statistic = excess * excess / (b + c);
  test.p_value = std::erfc(std::sqrt(test.statistic / 2.0));  // of χ² with one degree of freedom
  return test;
}

std::vector<CurvePoint> binned_means(const std::vector<CurvePoint>& points, std::size_t bins) {
  std::vector<CurvePoint> finite;
  for (const auto& point : points) {
    if (std::isfinite(point.x) && std::isfinite(point.y)) finite.push_back(point);
  }
  if (finite.size() <= bins || bins == 0) return finite;
  const double begin = finite.front().x;
  const double width = (finite.back().x - begin) / static_cast<double>(bins);
  std::vector<CurvePoint> means;
  for (std::size_t i = 0, bin = 0; i < finite.size() && bin < bins; ++bin) {
    const double end = begin + width * static_cast<double>(bin + 1);
    CurvePoint sum;
    double count = 0.0;
    for (; i < finite.size() && (finite[i].x < end || bin + 1 == bins); ++i, count += 1.0) {
      sum.x += finite[i].x;
      sum.y += finite[i].y;
    }
    if (count > 0.0) means.push_back({sum.x / count, sum.y / count});
  }
  return means;
}

}  // namespace clip_lora::train
