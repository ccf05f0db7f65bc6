#include "clip_lora/train/metrics.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <utility>

namespace clip_lora::train {
namespace {

double percent(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0.0 : 100.0 * static_cast<double>(part) / static_cast<double>(whole);
}

/// How far confidence and accuracy are apart, over bins (i / 15, (i + 1) / 15] of the confidence.
class Calibration {
 public:
  void add(double confidence, bool correct) {
    const double bin = std::ceil(confidence * static_cast<double>(kBins)) - 1.0;
    excess_[static_cast<std::size_t>(std::clamp(bin, 0.0, kBins - 1.0))] +=
        confidence - (correct ? 1.0 : 0.0);
  }

  /// Σ |B| / N · |accuracy(B) − confidence(B)| over bins B.
  double expected_error(std::int64_t total) const {
    double sum = 0.0;
    for (const double excess : excess_) sum += std::abs(excess);
    return total == 0 ? 0.0 : sum / static_cast<double>(total);
  }

 private:
  static constexpr std::size_t kBins = 15;
  std::array<double, kBins> excess_ = {};  ///< sum of confidences less the number of right ones, by bin
};

}  // namespace

std::optional<double> ClassMetrics::accuracy() const {
  if (total == 0) return std::nullopt;
  return percent(correct, total);
}

double ClassMetrics::f1() const {
  const std::int64_t sum = total + predicted;
  return sum == 0 ? 0.0 : 2.0 * static_cast<double>(correct) / static_cast<double>(sum);
}

double Metrics::accuracy() const { return percent(correct, total); }

double Metrics::top5_accuracy() const { return percent(correct_in_top5, total); }

double Metrics::macro_f1() const {
  double sum = 0.0;
  std::int64_t count = 0;
  for (const auto& of_class : classes) {
    if (of_class.total + of_class.predicted == 0) continue;
    sum += of_class.f1();
    ++count;
  }
  return count == 0 ? 0.0 : sum / static_cast<double>(count);
}

double accuracy(const Predictions& predictions, const std::vector<int>& meanings) {
  const auto labels = predictions.labels.accessor<std::int64_t, 1>();
  const auto likeliest = predictions.classes.accessor<std::int64_t, 2>();
  std::int64_t correct = 0;
  for (std::int64_t i = 0; i < labels.size(0); ++i) {
    correct += meanings.at(static_cast<std::size_t>(likeliest[i][0])) == labels[i] ? 1 : 0;
  }
  return percent(correct, labels.size(0));
}

Metrics compute_metrics(const Predictions& predictions, std::int64_t classes) {
  const auto labels = predictions.labels.accessor<std::int64_t, 1>();
  const auto likeliest = predictions.classes.accessor<std::int64_t, 2>();
  const auto probabilities = predictions.probabilities.accessor<float, 2>();
  Metrics metrics;
  metrics.total = labels.size(0);
  metrics.classes.resize(static_cast<std::size_t>(classes));
  std::map<std::pair<std::int64_t, std::int64_t>, std::int64_t> counts;  // by label and predicted class
  Calibration calibration;
  for (std::int64_t i = 0; i < metrics.total; ++i) {
    const std::int64_t label = labels[i], predicted = likeliest[i][0];
    const bool correct = predicted == label;
    auto& of_label = metrics.classes.at(static_cast<std::size_t>(label));
    ++of_label.total;
    of_label.correct += correct ? 1 : 0;
    ++metrics.classes.at(static_cast<std::size_t>(predicted)).predicted;
    metrics.correct += correct ? 1 : 0;
    for (std::int64_t k = 0; k < likeliest.size(1); ++k) {
      metrics.correct_in_top5 += likeliest[i][k] == label ? 1 : 0;
    }
    calibration.add(static_cast<double>(probabilities[i][0]), correct);
    ++counts[{label, predicted}];
  }
  metrics.expected_calibration_error = calibration.expected_error(metrics.total);
  for (const auto& [pair, count] : counts) metrics.confusion.push_back({pair.first, pair.second, count});
  return metrics;
}

}  // namespace clip_lora::train
