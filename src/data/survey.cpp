#include "clip_lora/data/survey.hpp"

#include <c10/util/Exception.h>

#include <mutex>
#include <unordered_set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/captions.hpp"
#include "clip_lora/data/robustness.hpp"
#include "clip_lora/image/codec.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

SplitSurvey survey_split(const std::string& name, std::vector<Item> items, bool may_be_missing) {
  SplitSurvey split{name, {}, {}};
  std::unordered_set<std::string> missing;
  if (may_be_missing) {
    for (Item& item : missing_images(items)) {
      split.missing.push_back(item.image);
      missing.insert(std::move(item.image));
    }
  }
  split.images.reserve(items.size() - split.missing.size());
  for (Item& item : items) {
    if (!missing.contains(item.image)) split.images.push_back(std::move(item.image));
  }
  return split;
}

/// Where it may be and where it is.
template <typename AnyBenchmark>
BenchmarkSurvey look_for(const AnyBenchmark& benchmark, const fs::path& root_path) {
  BenchmarkSurvey found;
  found.name = benchmark.name;
  found.contents = benchmark.contents;
  for (const std::string& folder : benchmark.folders) found.places.push_back(root_path / folder);
  for (const auto& place : found.places) {
    std::error_code ignored;
    if (found.folder.empty() && fs::is_directory(place, ignored)) found.folder = place;
  }
  return found;
}

/// Calls `read` if the folder has been found; what is wrong with the data is the survey's problem.
template <typename Read>
void read_into(BenchmarkSurvey& found, const Read& read) {
  if (!found.is_found()) return;
  try {
    read();
  } catch (const DataError& error) {
    found.problem = error.what();
  }
}

BenchmarkSurvey survey_shift(const RobustnessBenchmark& benchmark, const fs::path& root_path) {
  BenchmarkSurvey found = look_for(benchmark, root_path);
  read_into(found, [&] {
    ShiftedImages images = benchmark.read(found.folder, root_path);
    std::unordered_set<int> labels;
    for (const Item& item : images.items) labels.insert(item.label);
    found.classes = labels.size();
    found.splits.push_back(survey_split("test", std::move(images.items), /*may_be_missing=*/false));
  });
  return found;
}

BenchmarkSurvey survey_captions(const CaptionBenchmark& benchmark, const fs::path& root_path) {
  BenchmarkSurvey found = look_for(benchmark, root_path);
  read_into(found, [&] {
    CaptionDataset dataset = load_captions(benchmark.name, root_path);
    found.warnings = std::move(dataset.warnings);
    const auto add = [&](const std::string& name, const std::vector<CaptionedImage>& images) {
      if (!images.empty()) found.splits.push_back(survey_split(name, image_items(images), true));
    };
    add("train", dataset.train);
    add("val", dataset.val);
    add("test", dataset.test);
  });
  return found;
}

}  // namespace

std::size_t BenchmarkSurvey::missing_images() const {
  std::size_t count = 0;
  for (const SplitSurvey& split : splits) count += split.missing.size();
  return count;
}

BenchmarkSurvey survey_benchmark(const Benchmark& benchmark, const fs::path& root_path) {
  BenchmarkSurvey found = look_for(benchmark, root_path);
  read_into(found, [&] {
    Dataset dataset = benchmark.read(found.folder);
    found.classes = dataset.class_names.size();
    found.warnings = std::move(dataset.warnings);
    // What was listed a moment ago, instead of being named by a split file, need not be looked for: millions.
    const bool may_be_missing = !dataset.val_is_drawn_from_train;
    found.splits.push_back(survey_split("train", std::move(dataset.train), may_be_missing));
    if (!dataset.val.empty())
      found.splits.push_back(survey_split("val", std::move(dataset.val), may_be_missing));
    found.splits.push_back(survey_split("test", std::move(dataset.test), may_be_missing));
  });
  return found;
}

std::vector<std::string> surveyed_names() {
  std::vector<std::string> names = benchmark_names();
  for (const auto& benchmark : robustness_benchmarks()) names.push_back(benchmark.name);
  for (const auto& benchmark : caption_benchmarks()) names.push_back(benchmark.name);
  return names;
}

std::string find_surveyed_name(const std::string& name) {
  if (const Benchmark* benchmark = find_benchmark(name)) return benchmark->name;
  if (const RobustnessBenchmark* benchmark = find_robustness_benchmark(name)) return benchmark->name;
  return find_caption_benchmark(name) == nullptr ? "" : name;
}

BenchmarkSurvey survey(const std::string& name, const fs::path& root_path) {
  if (const Benchmark* benchmark = find_benchmark(name)) return survey_benchmark(*benchmark, root_path);
  if (const RobustnessBenchmark* benchmark = find_robustness_benchmark(name))
    return survey_shift(*benchmark, root_path);
  const CaptionBenchmark* benchmark = find_caption_benchmark(name);
  TORCH_CHECK(benchmark != nullptr, "no data set is called ", name);
  return survey_captions(*benchmark, root_path);
}

std::vector<BrokenImage> find_broken_images(const std::vector<std::string>& images, int workers,
                                            const std::function<void(std::size_t done)>& progress) {
  std::vector<std::string> reasons(images.size());
  std::mutex progress_mutex;
  std::size_t done = 0;
  parallel_for(images.size(), workers, [&](std::size_t i) {
    try {
      image::decode_image(images[i]);
    } catch (const DataError& error) {
      reasons[i] = error.what();
    }
    const std::lock_guard lock(progress_mutex);
    progress(++done);
  });
  std::vector<BrokenImage> broken;
  for (std::size_t i = 0; i < images.size(); ++i) {
    if (!reasons[i].empty()) broken.push_back({images[i], reasons[i]});
  }
  return broken;
}

}  // namespace clip_lora::data
