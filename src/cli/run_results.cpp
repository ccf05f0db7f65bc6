#include "run_results.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/train/statistics.hpp"
#include "prediction_text.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kWorstClasses = 5;
constexpr std::size_t kLongestLine = 160;
constexpr std::size_t kLongestName = 15;  // of other data sets: imagenet_sketch

const std::string& name_of(const std::vector<std::string>& class_names, std::int64_t label) {
  return class_names.at(static_cast<std::size_t>(label));
}

bool is_nested(const ordered_json& value) {
  return std::any_of(value.begin(), value.end(), [](const auto& inner) { return inner.is_structured(); });
}

void append_readable(std::string& text, const ordered_json& value, std::size_t indentation) {
  const std::string line = io::json_text(value);
  if (!value.is_structured() || value.empty() || (!is_nested(value) && line.size() <= kLongestLine)) {
    text += line;
    return;
  }
  const std::string inner(indentation + 2, ' ');
  const char* separator = "";
  text += value.is_array() ? "[" : "{";
  for (const auto& [key, element] : value.items()) {
    text += separator + ("\n" + inner);
    if (value.is_object()) text += io::json_text(key) + ": ";
    append_readable(text, element, indentation + 2);
    separator = ",";
  }
  text += "\n" + std::string(indentation, ' ') + (value.is_array() ? "]" : "}");
}

/// Labels of the classes that have pictures, those with the lowest accuracy first.
std::vector<std::int64_t> from_worst_to_best(const train::Metrics& metrics) {
  std::vector<std::int64_t> labels(metrics.classes.size());
  std::iota(labels.begin(), labels.end(), 0);
  const auto accuracy = [&](std::int64_t label) {
    return metrics.classes[static_cast<std::size_t>(label)].accuracy();
  };
  std::erase_if(labels, [&](std::int64_t label) { return !accuracy(label); });
  std::stable_sort(labels.begin(), labels.end(),
                   [&](std::int64_t a, std::int64_t b) { return *accuracy(a) < *accuracy(b); });
  return labels;
}

/// What others_json() and mean_json() have in common.
void add_accuracies(ordered_json& json, const OtherResult& other, const std::vector<double>& scales) {
  if (other.zero_shot_accuracy) json["zero_shot_accuracy"] = *other.zero_shot_accuracy;
  for (std::size_t i = 0; i < scales.size(); ++i)
    json["scales"].push_back({{"eval_scale", scales[i]}, {"accuracy", other.accuracies.at(i)}});
}

}  // namespace

ordered_json scales_json(const std::vector<ScaledAccuracy>& scales, double untouched,
                         std::optional<double> untouched_new_classes) {
  std::vector<ScaledAccuracy> rows = {{0.0, untouched, untouched_new_classes}};
  rows.insert(rows.end(), scales.begin(), scales.end());
  auto json = ordered_json::array();
  for (const auto& row : rows) {
    json.push_back({{"eval_scale", row.scale}, {"accuracy", row.accuracy}});
    if (!row.new_classes) continue;
    json.back()["new_classes_accuracy"] = *row.new_classes;
    json.back()["harmonic_mean"] = train::harmonic_mean(row.accuracy, *row.new_classes);
  }
  return json;
}

OtherResult mean_of(const std::vector<OtherResult>& others) {
  OtherResult mean = others.front();
  mean.dataset = "mean of " + std::to_string(others.size());
  const auto average = [&](const auto& accuracy_of) {
    double sum = 0.0;
    for (const auto& other : others) sum += accuracy_of(other);
    return sum / static_cast<double>(others.size());
  };
  if (mean.zero_shot_accuracy)
    mean.zero_shot_accuracy = average([](const auto& other) { return *other.zero_shot_accuracy; });
  for (std::size_t i = 0; i < mean.accuracies.size(); ++i)
    mean.accuracies[i] = average([i](const auto& other) { return other.accuracies.at(i); });
  return mean;
}

ordered_json others_json(const std::vector<OtherResult>& others, const std::vector<double>& scales) {
  auto json = ordered_json::array();
  for (const auto& other : others) {
    json.push_back({{"dataset", other.dataset}, {"classes", other.classes}, {"images", other.images}});
    add_accuracies(json.back(), other, scales);
  }
  return json;
}

ordered_json mean_json(const std::vector<OtherResult>& others, const std::vector<double>& scales) {
  ordered_json json;
  add_accuracies(json, mean_of(others), scales);
  return json;
}

std::string other_text(const OtherResult& other, const std::vector<double>& scales) {
  std::string text = other.dataset;
  text.resize(std::max(kLongestName, text.size()), ' ');
  if (other.zero_shot_accuracy) text += "   zero-shot " + percent(*other.zero_shot_accuracy);
  const double adapted = other.accuracies.front();
  text += "   adapted " + percent(adapted) + gain_text(adapted, other.zero_shot_accuracy);
  for (std::size_t i = 1; i < scales.size(); ++i)
    text += "   scale " + fixed(scales[i], 2) + " " + percent(other.accuracies.at(i));
  return text;
}

std::string gain_text(double adapted, const std::optional<double>& zero_shot) {
  if (!zero_shot) return {};
  const double gain = adapted - *zero_shot;
  return std::string("   (") + (gain < 0 ? "" : "+") + fixed(gain, 2) + ")";
}

std::string new_classes_text(const std::optional<double>& accuracy) {
  return accuracy ? "   new classes " + percent(*accuracy) : "";
}

ordered_json overall_json(const train::Metrics& metrics) {
  return {{"accuracy", metrics.accuracy()},
          {"top5_accuracy", metrics.top5_accuracy()},
          {"macro_f1", metrics.macro_f1()},
          {"expected_calibration_error", metrics.expected_calibration_error}};
}

ordered_json per_class_json(const train::Metrics& metrics, const std::vector<std::string>& class_names) {
  ordered_json classes = ordered_json::array();
  for (std::size_t label = 0; label < metrics.classes.size(); ++label) {
    const train::ClassMetrics& of_class = metrics.classes[label];
    ordered_json entry = {
        {"name", class_names.at(label)}, {"total", of_class.total}, {"correct", of_class.correct}};
    const auto accuracy = of_class.accuracy();
    entry["accuracy"] = accuracy ? ordered_json(*accuracy) : ordered_json(nullptr);
    classes.push_back(std::move(entry));
  }
  return classes;
}

ordered_json confusion_json(const train::Metrics& metrics) {
  ordered_json entries = ordered_json::array();
  for (const auto& entry : metrics.confusion) {
    entries.push_back(ordered_json::array({entry.label, entry.predicted, entry.count}));
  }
  return entries;
}

ordered_json training_json(const TrainingReport& training,
                           const std::optional<train::TrainingState>& resumed) {
  ordered_json resumed_from;
  if (resumed) resumed_from = {{"iteration", resumed->iteration}, {"images", resumed->images}};
  return {{"iterations", training.iterations},
          {"images", training.images},
          {"images_seen", training.images_seen},
          {"resumed_from", resumed_from},
          {"loss", training.loss},
          {"selected_iteration", training.result.selected_iteration}};
}

ordered_json validation_json(const TrainingReport& training) {
  ordered_json points = ordered_json::array();
  for (const auto& point : training.result.validation) {
    points.push_back({{"iteration", point.iteration}, {"accuracy", point.accuracy}});
  }
  return points;
}

ordered_json memory_json(at::Device device) {
  const auto gpu = peak_memory_bytes(device);
  const std::uint64_t resident = peak_resident_bytes();
  return {{"peak_gpu_bytes", gpu ? ordered_json(*gpu) : ordered_json()},
          {"peak_resident_bytes", resident > 0 ? ordered_json(resident) : ordered_json()}};
}

std::string readable(const ordered_json& value) {
  std::string text;
  append_readable(text, value, 0);
  return text + "\n";
}

bool is_imbalanced(const train::Metrics& metrics) {
  std::int64_t smallest = metrics.total;
  std::int64_t largest = 0;
  for (const auto& of_class : metrics.classes) {
    if (of_class.total == 0) continue;
    smallest = std::min(smallest, of_class.total);
    largest = std::max(largest, of_class.total);
  }
  return largest > 2 * smallest;
}

std::vector<std::string> mistakes(const train::Metrics& metrics,
                                  const std::vector<std::string>& class_names) {
  if (metrics.correct == metrics.total) return {};
  std::string worst;
  std::vector<std::int64_t> labels = from_worst_to_best(metrics);
  labels.resize(std::min(labels.size(), kWorstClasses));
  for (const std::int64_t label : labels) {
    const train::ClassMetrics& of_class = metrics.classes[static_cast<std::size_t>(label)];
    if (of_class.correct == of_class.total) break;
    worst += (worst.empty() ? "" : "   ") + printable(name_of(class_names, label)) + " " +
             with_commas(of_class.correct) + "/" + with_commas(of_class.total);
  }
  train::Confusion commonest;
  for (const auto& entry : metrics.confusion) {
    if (entry.label != entry.predicted && entry.count > commonest.count) commonest = entry;
  }
  return {"worst      " + worst, "confused   " + printable(name_of(class_names, commonest.label)) +
                                     " taken for " + printable(name_of(class_names, commonest.predicted)) +
                                     ", " + with_commas(commonest.count) + "×"};
}

void write_predictions(const std::filesystem::path& file, const std::vector<data::Item>& items,
                       const train::Predictions& predictions,
                       const std::optional<train::Predictions>& zero_shot,
                       const std::vector<std::string>& class_names) {
  const auto classes = predictions.classes.accessor<std::int64_t, 2>();
  const auto probabilities = predictions.probabilities.accessor<float, 2>();
  const at::Tensor likeliest = zero_shot ? zero_shot->classes.select(1, 0) : predictions.labels;
  const auto untouched = likeliest.accessor<std::int64_t, 1>();
  std::string text = "path,label,predicted,probability";
  for (std::int64_t place = 1; place < classes.size(1); ++place) {
    const std::string rank = std::to_string(place + 1);
    text += ",predicted_" + rank + ",probability_" + rank;
  }
  text += zero_shot ? ",zero_shot_predicted\n" : "\n";
  for (std::size_t i = 0; i < items.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i);
    text += csv_field(items[i].image) + "," + csv_field(name_of(class_names, items[i].label));
    for (std::int64_t place = 0; place < classes.size(1); ++place) {
      text += "," + csv_field(name_of(class_names, classes[row][place])) + "," +
              fixed(static_cast<double>(probabilities[row][place]), 6);
    }
    if (zero_shot) text += "," + csv_field(name_of(class_names, untouched[row]));
    text += "\n";
  }
  io::write_atomically(file, text);
}

}  // namespace clip_lora::cli
