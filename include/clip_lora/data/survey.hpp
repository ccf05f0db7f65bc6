#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// One split of a data set on this disk.
struct SplitSurvey {
  std::string name;                  ///< train, val or test
  std::vector<std::string> images;   ///< paths of those that are there
  std::vector<std::string> missing;  ///< paths of those that are not
};

/// What is there of one data set.
struct BenchmarkSurvey {
  std::string name;
  std::string contents;                       ///< what its folder must hold, in words
  std::vector<std::filesystem::path> places;  ///< folders that are accepted
  std::filesystem::path folder;               ///< the first of them that exists; empty: none does
  std::string problem;              ///< why the folder cannot be read as this data set; empty: it can
  std::size_t classes = 0;          ///< 0: its images have captions instead
  std::vector<SplitSurvey> splits;  ///< train, val (where there is one), test; empty if there is a problem
  std::vector<std::string> warnings;

  bool is_found() const { return !folder.empty(); }
  std::size_t missing_images() const;
  /// Found, readable, and no image is missing.
  bool is_complete() const { return is_found() && problem.empty() && missing_images() == 0; }
};

/// Looks for `benchmark` below `root_path`; opens no image.
BenchmarkSurvey survey_benchmark(const Benchmark& benchmark, const std::filesystem::path& root_path);

/// The names of all data sets that can be looked for: benchmarks(), robustness_benchmarks() and
/// caption_benchmarks(), each in its order.
std::vector<std::string> surveyed_names();

/// The name of that list which `name`, itself or an alias, stands for; "" for none.
std::string find_surveyed_name(const std::string& name);

/// Looks for the data set of that name of the list, as survey_benchmark does.
BenchmarkSurvey survey(const std::string& name, const std::filesystem::path& root_path);

/// An image that cannot be decoded, and why.
struct BrokenImage {
  std::string image;
  std::string reason;
};

/// Decodes `images` on `workers` threads (at least 1); those that fail, in the order of the list. `progress`
/// hears from one thread at a time how many are done.
std::vector<BrokenImage> find_broken_images(const std::vector<std::string>& images, int workers,
                                            const std::function<void(std::size_t done)>& progress);

}  // namespace clip_lora::data
