#include "clip_lora/data/survey.hpp"

#include <mutex>
#include <unordered_set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/image/codec.hpp"

namespace clip_lora::data {
namespace {

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

}  // namespace

std::size_t BenchmarkSurvey::missing_images() const {
  std::size_t count = 0;
  for (const SplitSurvey& split : splits) count += split.missing.size();
  return count;
}

BenchmarkSurvey survey_benchmark(const Benchmark& benchmark, const std::filesystem::path& root_path) {
  BenchmarkSurvey survey;
  survey.name = benchmark.name;
  survey.contents = benchmark.contents;
  for (const std::string& folder : benchmark.folders) survey.places.push_back(root_path / folder);
  for (const auto& place : survey.places) {
    std::error_code ignored;
    if (survey.folder.empty() && std::filesystem::is_directory(place, ignored)) survey.folder = place;
  }
  if (!survey.is_found()) return survey;
  try {
    Dataset dataset = benchmark.read(survey.folder);
    survey.classes = dataset.class_names.size();
    survey.warnings = std::move(dataset.warnings);
    // What was listed a moment ago, instead of being named by a split file, need not be looked for: millions.
    const bool may_be_missing = !dataset.val_is_drawn_from_train;
    survey.splits.push_back(survey_split("train", std::move(dataset.train), may_be_missing));
    if (!dataset.val.empty())
      survey.splits.push_back(survey_split("val", std::move(dataset.val), may_be_missing));
    survey.splits.push_back(survey_split("test", std::move(dataset.test), may_be_missing));
  } catch (const DataError& error) {
    survey.problem = error.what();
  }
  return survey;
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
