#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// One of the data sets with a published split. All are listed by benchmarks(); each reader has a file of its
/// own.
struct Benchmark {
  std::string name;                  ///< `--dataset`
  std::vector<std::string> aliases;  ///< other names that --dataset takes
  std::vector<std::string> folders;  ///< below --root_path, CoOp's first, then the CLIP-LoRA release's
  std::string contents;              ///< what the folder must hold, in words
  /// The prompts that CoOp and Tip-Adapter use for it; ImageNet: OpenAI's 80.
  std::vector<std::string> templates;
  /// Reads the data set whose folder has been found: lists and names, no image is opened. Throws DataError
  /// for a missing or broken split file or image folder.
  Dataset (*read)(const std::filesystem::path& folder);
};

/// The eleven of CoOp and the demo's shapes, sorted by name.
const std::vector<Benchmark>& benchmarks();

/// Their names, sorted, without aliases.
std::vector<std::string> benchmark_names();

/// The names of the eleven, without the demo's.
std::vector<std::string> published_benchmark_names();

/// By name or alias; nullptr if there is none.
const Benchmark* find_benchmark(const std::string& name);

/// The first of the benchmark's folders that exists below `root_path`. Throws DataError that lists all tried.
std::filesystem::path find_folder(const Benchmark& benchmark, const std::filesystem::path& root_path);

/// The benchmark `name` (or alias) below `root_path`. Throws ConfigError for an unknown name (the nearest is
/// offered), DataError as find_folder and Benchmark::read.
Dataset load_benchmark(const std::string& name, const std::filesystem::path& root_path);

}  // namespace clip_lora::data
