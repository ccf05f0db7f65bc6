#include "run_data.hpp"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/base_to_new.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "clip_lora/lora/method.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// Where a split is kept that own data have not got themselves; empty without --save_path. An evaluation
/// keeps none that is not kept already.
fs::path saved_split(const RunOptions& options) {
  if (options.output.save_path.empty()) return {};
  const fs::path file =
      fs::path(options.output.save_path) / (data::own_dataset_name(options.data.dataset) + "_split.json");
  std::error_code ignored;
  return options.output.eval_only && !fs::exists(file, ignored) ? fs::path() : file;
}

/// Throws DataError for what is meant as a path, ConfigError for a name.
[[noreturn]] void throw_no_dataset(const std::string& asked) {
  const std::string no_path = "--dataset '" + asked + "': there is no such folder, .csv or .json file";
  if (asked.find('/') != std::string::npos) throw data::MissingData(no_path);
  const auto names = data::benchmark_names();
  throw ConfigError(no_path + ", nor a data set of this name: expected one of " +
                    join_capped(names, names.size()) + did_you_mean(asked, names));
}

/// What a run trains on: of all classes, or of what a sample of all has of the base ones.
void sample(RunData& found, const data::Dataset& dataset, const DataOptions& asked) {
  data::FewShot drawn = asked.shots
                            ? data::sample_few_shot(dataset, static_cast<int>(*asked.shots), asked.seed)
                            : data::FewShot{dataset.train, dataset.val, {}};
  if (asked.protocol == kBaseToNew) drawn = data::base_classes(drawn, dataset);
  found.train = std::move(drawn.train);
  found.val = std::move(drawn.val);
  const auto& short_classes = drawn.short_classes;
  if (short_classes.empty()) return;
  found.warnings.push_back(
      with_commas(static_cast<std::int64_t>(short_classes.size())) +
      (short_classes.size() == 1 ? " class has" : " classes have") + " fewer than " +
      std::to_string(*asked.shots) +
      " training images, so that some are drawn more than once: " + join_capped(short_classes));
}

/// --allow_missing may take every training image of a class.
void warn_of_untrained_classes(RunData& found) {
  const auto left_out = found.left_out.find("train");
  if (left_out == found.left_out.end() || left_out->second == 0) return;
  std::set<int> trained;
  for (const auto& item : found.train) trained.insert(item.label);
  std::vector<std::string> untrained;
  for (int label = 0; label < static_cast<int>(found.dataset.class_names.size()); ++label) {
    if (!trained.contains(label))
      untrained.push_back(found.dataset.class_names[static_cast<std::size_t>(label)]);
  }
  if (!untrained.empty()) found.warnings.push_back("no training image is there of " + join_capped(untrained));
}

}  // namespace

bool trains_anything(const RunOptions& options) {
  return !options.output.eval_only && lora::find_method(options.adapter.method).is_trained;
}

std::int64_t leave_out_missing(std::vector<data::Item>& items, const std::string& what, bool allowed) {
  if (!allowed) {
    data::require_images(items, what);
    return 0;
  }
  std::unordered_set<std::string> missing;
  for (const auto& item : data::missing_images(items)) missing.insert(item.image);
  if (missing.empty()) return 0;
  const std::string first = items.front().image;
  const auto left_out = std::erase_if(items, [&](const auto& item) { return missing.contains(item.image); });
  if (items.empty())
    throw data::MissingData(what + ": all of its images are missing, the first is '" + first + "'");
  return static_cast<std::int64_t>(left_out);
}

void KeptDataset::find(const RunOptions& options) {
  const DataOptions& asked = options.data;
  const fs::path split_file = saved_split(options);
  Key key = {asked.dataset,    asked.root_path,   asked.split.test_fraction, asked.split.val_fraction,
             asked.split.seed, asked.class_names, split_file.string(),       asked.allow_missing};
  if (key_ == key) return;
  key_.reset();  // until it is loaded
  has_test_images_ = false;
  halves_.reset();
  benchmark_ = data::find_benchmark(asked.dataset);
  if (benchmark_ == nullptr && data::is_own_dataset(asked.dataset)) {
    dataset_ = data::load_own_dataset(asked.dataset, {asked.split, asked.class_names, split_file});
  } else if (benchmark_ == nullptr) {
    throw_no_dataset(asked.dataset);
  } else {
    dataset_ = data::load_benchmark(asked.dataset, asked.root_path);
  }
  key_ = std::move(key);
}

/// Of the test images that are there.
const KeptDataset::Halves& KeptDataset::halves() {
  if (halves_) return *halves_;
  data::Dataset tested;  // without the training images, of which there may be a million
  tested.name = dataset_.name;
  tested.class_names = dataset_.class_names;
  tested.test = dataset_.test;
  halves_ = {data::base_classes(tested), data::new_classes(tested)};
  return *halves_;
}

RunData KeptDataset::load(const RunOptions& options) {
  find(options);
  RunData found;
  found.benchmark = benchmark_;
  found.is_own = benchmark_ == nullptr;
  found.warnings = dataset_.warnings;
  sample(found, dataset_, options.data);
  const bool trains = !options.output.eval_only;
  const bool validates = trains && options.training.eval_every > 0;
  if (!validates) found.val.clear();
  if (validates && found.val.empty()) {
    throw ConfigError("--eval_every " + std::to_string(options.training.eval_every) + ": '" + dataset_.name +
                      "' has no validation images to look at");
  }
  const bool allowed = options.data.allow_missing;
  if (trains) found.left_out["train"] = leave_out_missing(found.train, "training images", allowed);
  if (validates) found.left_out["val"] = leave_out_missing(found.val, "validation images", allowed);
  if (!has_test_images_) test_left_out_ = leave_out_missing(dataset_.test, "test split", allowed);
  has_test_images_ = true;
  found.left_out["test"] = test_left_out_;
  const bool is_halved = options.data.protocol == kBaseToNew;
  found.dataset.name = dataset_.name;
  found.dataset.class_names = is_halved ? halves().base.class_names : dataset_.class_names;
  found.test = is_halved ? halves().base.test : dataset_.test;
  if (is_halved) found.new_classes = halves().new_classes;
  warn_of_untrained_classes(found);
  return found;
}

}  // namespace clip_lora::cli
