#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "clip_lora/data/own_dataset.hpp"

namespace clip_lora::data {

// The parts of load_own_dataset. Their data sets' class names are the folders' and labels' own, as they stand
// there; a JSON's have spaces for underscores already.

/// Classes and pictures that nobody has split yet.
struct UnsplitData {
  std::string name;
  std::filesystem::path path;  ///< for messages
  std::vector<ClassFolder> classes;
  /// By picture: those of one group stay in one split. Pictures that are not in it stand for themselves.
  std::unordered_map<std::string, std::string> group_of;
  std::vector<std::string> warnings;
};

/// A folder of class folders, or of `train/`, `test/` … of such.
Dataset load_own_folder(const std::filesystem::path& folder, const OwnDatasetOptions& options);

/// A table of comma-separated values.
Dataset load_own_csv(const std::filesystem::path& file, const OwnDatasetOptions& options);

/// A CoOp split.
Dataset load_own_json(const std::filesystem::path& file);

/// Splits class by class; group by group where there are any.
Dataset split_classes(const UnsplitData& data, const SplitOptions& options);

/// The split that options.saved_split holds, or a new one, which is kept there. Pictures lie below
/// `image_folder`.
Dataset split_or_reuse(const UnsplitData& data, const std::filesystem::path& image_folder,
                       const OwnDatasetOptions& options);

/// The folder that a split JSON's paths are relative to.
std::filesystem::path image_folder_of(const std::filesystem::path& split_file);

/// Throws DataError for a single class; `only` is its name.
void require_classes(std::size_t count, const std::string& only, const std::filesystem::path& path);

/// Says that fractions other than the default ones play no part, if `options` has such.
void warn_of_unused_fractions(Dataset& dataset, const std::filesystem::path& path,
                              const SplitOptions& options);

/// "own data 'PATH': ", which begins messages about it.
std::string own_data(const std::filesystem::path& path);

}  // namespace clip_lora::data
