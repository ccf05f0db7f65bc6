#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "clip_lora/train/evaluate.hpp"

namespace clip_lora::train {

/// One kind of mistake: how often pictures of class `label` were taken for class `predicted`.
struct Confusion {
  std::int64_t label = 0;
  std::int64_t predicted = 0;
  std::int64_t count = 0;
};

/// What became of the pictures of one class.
struct ClassMetrics {
  std::int64_t total = 0;      ///< pictures of the class
  std::int64_t correct = 0;    ///< recognised
  std::int64_t predicted = 0;  ///< pictures taken for it, rightly or not

  /// Percent; nothing for a class without pictures.
  std::optional<double> accuracy() const;
  /// 2 · correct / (total + predicted), 0 … 1; 0 where both are 0, as scikit-learn's
  /// f1_score(zero_division=0).
  double f1() const;
};

/// How good predictions are.
struct Metrics {
  std::int64_t correct = 0;
  std::int64_t total = 0;
  std::int64_t correct_in_top5 = 0;  ///< the right class is among the K = min(5, C) likeliest
  double expected_calibration_error =
      0;  ///< Guo et al. 2017: 15 bins of equal width over the top probability, 0 … 1
  std::vector<ClassMetrics> classes;  ///< by label
  /// The confusion matrix's entries that are not 0, the diagonal included, by label, then by predicted class.
  std::vector<Confusion> confusion;

  double accuracy() const;       ///< percent; 0 of nothing
  double top5_accuracy() const;  ///< percent
  /// Mean f1 of the classes that have pictures or were predicted, 0 … 1.
  double macro_f1() const;
};

/// Percent of the pictures whose likeliest class means their label, where class k means label meanings[k]
/// (any number of classes may mean the same); 0 of nothing.
double accuracy(const Predictions& predictions, const std::vector<int>& meanings);

/// classes: C.
Metrics compute_metrics(const Predictions& predictions, std::int64_t classes);

}  // namespace clip_lora::train
