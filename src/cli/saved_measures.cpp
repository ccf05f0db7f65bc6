#include "saved_run.hpp"

namespace clip_lora::cli {
namespace {

using nlohmann::ordered_json;

/// Every number of `figures`, those of objects within it by "object.name".
void add_figures(const ordered_json& figures, const std::string& prefix, const std::string& tested_on,
                 double scale, SavedRun& run) {
  for (const auto& [name, value] : figures.items()) {
    if (value.is_object()) add_figures(value, prefix + name + ".", tested_on, scale, run);
    if (value.is_number() && name != "eval_scale")
      run.measured.try_emplace({tested_on, prefix + name, scale}, value.get<double>());
  }
}

/// The rows of "scales", which runs of older versions do not have.
void add_scales(const ordered_json& object, const std::string& tested_on, SavedRun& run) {
  const auto rows = object.find("scales");
  if (rows == object.end() || rows->is_null()) return;
  for (const auto& row : *rows) add_figures(row, "", tested_on, row.at("eval_scale").get<double>(), run);
}

/// Of one data set beside the run's own, or of their mean.
void add_other(const ordered_json& other, const std::string& tested_on, SavedRun& run) {
  const auto untouched = other.find("zero_shot_accuracy");
  if (untouched != other.end() && !untouched->is_null())
    run.measured.try_emplace({tested_on, "accuracy", 0.0}, untouched->get<double>());
  add_scales(other, tested_on, run);
}

/// The first --eval_scale. Methods that take none have it from their only row.
double first_scale(const ordered_json& results) {
  const ordered_json asked = results.at("settings").value("eval_scale", ordered_json());
  if (asked.is_array() && !asked.empty()) return asked.front().get<double>();
  const bool is_retrieval = results.contains("retrieval");
  const ordered_json rows =
      (is_retrieval ? results.at("retrieval") : results).value("scales", ordered_json());
  const std::size_t first = is_retrieval ? 0 : 1;  // after the untouched model
  return rows.size() > first ? rows.at(first).at("eval_scale").get<double>() : 1.0;
}

}  // namespace

void read_measures(const ordered_json& results, SavedRun& run) {
  run.eval_scale = first_scale(results);
  if (const auto retrieval = results.find("retrieval"); retrieval != results.end()) {
    add_figures(retrieval->at("zero_shot"), "", "", 0.0, run);
    add_scales(*retrieval, "", run);
    return;
  }
  run.measured.try_emplace({"", "accuracy", 0.0}, run.zero_shot_accuracy);
  run.measured.try_emplace({"", "accuracy", run.eval_scale}, run.accuracy);
  add_scales(results, "", run);
  for (const auto& other : results.value("other_datasets", ordered_json::array())) {
    run.others.push_back(other.at("dataset").get<std::string>());
    add_other(other, run.others.back(), run);
  }
  const auto mean = results.find("mean_of_others");
  if (mean != results.end() && !mean->is_null()) add_other(*mean, kMeanOfOthers, run);
}

}  // namespace clip_lora::cli
