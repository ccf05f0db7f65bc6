#pragma once

#include <c10/core/Device.h>

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/cli/run.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/train/metrics.hpp"
#include "run_training.hpp"

namespace clip_lora::cli {

/// Accuracy, top-5 accuracy (percent), macro-F1 and expected calibration error (0 … 1).
nlohmann::ordered_json overall_json(const train::Metrics& metrics);

/// What one --eval_scale has given. Percent.
struct ScaledAccuracy {
  double scale = 1.0;
  double accuracy = 0.0;              ///< of the test split
  std::optional<double> new_classes;  ///< of new classes, with the protocol base_to_new
};

/// [{eval_scale, accuracy, and with base_to_new new_classes_accuracy, harmonic_mean}], the untouched model,
/// as scale 0, first.
nlohmann::ordered_json scales_json(const std::vector<ScaledAccuracy>& scales, double untouched,
                                   std::optional<double> untouched_new_classes);

/// The mean of other data sets, of which there is at least one; its name says of how many.
OtherResult mean_of(const std::vector<OtherResult>& others);

/// [{dataset, classes, images, zero_shot_accuracy, scales: [{eval_scale, accuracy}]}] and the last two of the
/// mean. `scales`: --eval_scale.
nlohmann::ordered_json others_json(const std::vector<OtherResult>& others, const std::vector<double>& scales);
nlohmann::ordered_json mean_json(const std::vector<OtherResult>& others, const std::vector<double>& scales);

/// "imagenet_v2   zero-shot 61.90 %   adapted 63.10 %   (+1.20)" for the terminal, at the end what
/// further scales give.
std::string other_text(const OtherResult& other, const std::vector<double>& scales);

/// "   (+1.20)": what adaptation gained, in points; "" where the untouched model was not asked.
std::string gain_text(double adapted, const std::optional<double>& zero_shot);

/// "   new classes 12.34 %" for the terminal; "" for nothing.
std::string new_classes_text(const std::optional<double>& accuracy);

/// [{name, total, correct, accuracy}] by label; no accuracy (null) for a class without pictures.
nlohmann::ordered_json per_class_json(const train::Metrics& metrics,
                                      const std::vector<std::string>& class_names);

/// [[label, predicted label, count]] of the confusion matrix's entries that are not 0.
nlohmann::ordered_json confusion_json(const train::Metrics& metrics);

/// What was trained on, for how long, after which checkpoint if it went on from one (else null), and which
/// adapter was kept.
nlohmann::ordered_json training_json(const TrainingReport& training,
                                     const std::optional<train::TrainingState>& resumed);

/// [{iteration, accuracy}] of the looks at the validation split.
nlohmann::ordered_json validation_json(const TrainingReport& training);

/// {peak_gpu_bytes, peak_resident_bytes}: the most memory since it was last reset; null where there is none
/// to tell of.
nlohmann::ordered_json memory_json(at::Device device);

/// JSON for people: a value stands on one line if it is small and nothing is nested in it.
std::string readable(const nlohmann::ordered_json& value);

/// Whether accuracy alone may mislead: the largest class has more than twice the pictures of the smallest.
bool is_imbalanced(const train::Metrics& metrics);

/// The terminal's lines on what went wrong: the five worst classes and the commonest confusion; no line where
/// nothing did.
std::vector<std::string> mistakes(const train::Metrics& metrics, const std::vector<std::string>& class_names);

/// Writes predictions.csv (RFC 4180), one line per item: path, label, predicted, probability, the next likely
/// classes with theirs, and last, if `zero_shot` is there, what the untouched model predicted. Throws
/// ConfigError if it cannot be written.
void write_predictions(const std::filesystem::path& file, const std::vector<data::Item>& items,
                       const train::Predictions& predictions,
                       const std::optional<train::Predictions>& zero_shot,
                       const std::vector<std::string>& class_names);

}  // namespace clip_lora::cli
