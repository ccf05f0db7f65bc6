#include "other_datasets.hpp"

#include <algorithm>
#include <numeric>
#include <set>
#include <utility>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "clip_lora/data/robustness.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {
namespace {

/// The benchmarks but the run's own, or the shifts.
std::vector<std::string> wanted_names(const DataOptions& asked) {
  std::vector<std::string> names;
  if (asked.protocol == kRobustness) {
    for (const auto& shift : data::robustness_benchmarks()) names.push_back(shift.name);
  } else if (asked.protocol == kCrossDataset) {
    names = data::published_benchmark_names();
    if (const auto* const own = data::find_benchmark(asked.dataset)) std::erase(names, own->name);
  }
  return names;
}

OtherDataset read_benchmark(const std::string& name, const DataOptions& asked) {
  data::Dataset dataset = data::load_benchmark(name, asked.root_path);
  OtherDataset other = {.name = name, .classes = std::ssize(dataset.class_names)};
  other.test = std::move(dataset.test);
  other.left_out = leave_out_missing(other.test, name + ": test split", asked.allow_missing);
  other.prompts = text::class_prompts(dataset.class_names, data::find_benchmark(name)->templates);
  other.meanings.resize(dataset.class_names.size());
  std::iota(other.meanings.begin(), other.meanings.end(), 0);
  for (const auto& warning : dataset.warnings) other.warnings.push_back(name + ": " + warning);
  return other;
}

OtherDataset read_shift(const std::string& name, const DataOptions& asked) {
  data::ShiftedImages shift = data::load_shifted_images(name, asked.root_path);
  OtherDataset other = {.name = name, .border_px = shift.border_px};
  std::set<int> classes;
  for (const auto& item : shift.items) classes.insert(item.label);
  other.classes = std::ssize(classes);
  other.test = std::move(shift.items);
  other.counted_labels.assign(shift.counted_labels.begin(), shift.counted_labels.end());
  std::vector<int> predicted = shift.counted_labels;
  if (predicted.empty()) {
    predicted.resize(text::imagenet_class_names().size());
    std::iota(predicted.begin(), predicted.end(), 0);
  }
  for (const int label : predicted) other.meanings.push_back(shift.class_of(label));
  return other;
}

void require_imagenet_classes(std::size_t own_classes) {
  const std::size_t expected = text::imagenet_class_names().size();
  if (own_classes == expected) return;
  throw DataError("--protocol robustness: data set 'imagenet' has " +
                  with_commas(static_cast<std::int64_t>(own_classes)) +
                  " classes, expected the 1,000 that its shifts have labels of");
}

/// A line for each data set that cannot be used, which says why.
struct Problems {
  std::vector<std::string> missing_names;
  std::vector<std::string> missing;
  std::vector<std::string> broken;
};

std::string lines_of(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += "\n" + line;
  return text;
}

void require_all(const Problems& problems, const DataOptions& asked) {
  std::string text = lines_of(problems.broken);
  if (!asked.skip_missing && !problems.missing.empty()) {
    text += lines_of(problems.missing) + "\n(hint: --skip_missing leaves out " +
            join_capped(problems.missing_names) + ")";
  }
  if (!text.empty())
    throw DataError("--protocol " + asked.protocol + " tests on data sets that cannot be used:" + text);
}

}  // namespace

std::shared_ptr<const OtherDataset> KeptOtherDatasets::find(const std::string& name,
                                                            const DataOptions& asked) {
  auto& known = found_[name];
  if (!known) {
    known = std::make_shared<const OtherDataset>(asked.protocol == kRobustness ? read_shift(name, asked)
                                                                               : read_benchmark(name, asked));
  }
  return known;
}

OtherDatasets KeptOtherDatasets::load(const RunOptions& options, std::size_t own_classes) {
  const DataOptions& asked = options.data;
  const auto names = wanted_names(asked);
  if (names.empty()) return {};
  if (asked.protocol == kRobustness) require_imagenet_classes(own_classes);
  const Key key = {asked.protocol, asked.root_path, asked.allow_missing};
  if (key_ != key) found_.clear();
  key_ = key;
  OtherDatasets others;
  Problems problems;
  for (const auto& name : names) {
    try {
      others.datasets.push_back(find(name, asked));
    } catch (const data::MissingData& error) {
      problems.missing_names.push_back(name);
      problems.missing.emplace_back(error.what());
    } catch (const DataError& error) {
      problems.broken.emplace_back(error.what());
    }
  }
  require_all(problems, asked);
  if (others.datasets.empty()) {
    throw DataError("--protocol " + asked.protocol +
                    " has nothing left to test on:" + lines_of(problems.missing));
  }
  for (const auto& other : others.datasets)
    others.warnings.insert(others.warnings.end(), other->warnings.begin(), other->warnings.end());
  for (const auto& line : problems.missing) others.warnings.push_back("left out: " + line);
  return others;
}

}  // namespace clip_lora::cli
