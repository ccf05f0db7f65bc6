#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/image_folder.hpp"

namespace clip_lora::data {

/// How pictures without a split of their own are split, class by class. The defaults are CoOp's 50/20/30.
struct SplitOptions {
  double test_fraction = 0.3;
  double val_fraction = 0.2;
  std::int64_t seed = 1;  ///< of CPython's generator

  /// Throws ConfigError naming the flag, its value and the allowed range.
  void validate() const;
};

/// What a user says of data of their own.
struct OwnDatasetOptions {
  SplitOptions split;
  std::filesystem::path
      class_names;  ///< file, see read_class_names; empty: the folders' or labels' own names
  /// Where a split that had to be made is kept, so that every later run uses the same; empty: it is not kept.
  std::filesystem::path saved_split;
};

/// Whether `--dataset VALUE` means own data: a folder that is there, a .csv or a .json, and no benchmark's
/// name.
bool is_own_dataset(const std::string& value);

/// What own data at `path` are called, Dataset::name: the folder's name, or the file's without its extension.
std::string own_dataset_name(const std::filesystem::path& path);

/// Own data, by what `path` is:
///  - a folder with `train/` and `test/` (and `val/`, or `valid/`, `validation/`), each of class folders;
///  - a folder of class folders, which is split as `options.split` says; one called `train` or `test` is a
///  class
///    if the other is not there and it holds pictures instead of folders;
///  - a .csv of path, label[, split[, group]] (RFC 4180; a header names the columns in any order, without one
///    they have this order); paths relative to its folder; without a split column it is split, one group's
///    pictures together;
///  - a .json in CoOp's split format; paths relative to its key `image_folder`, or else its own folder.
/// Names beginning with a dot are passed over. Throws DataError: a single class, a class without pictures or
/// with too few to split, a class that test or val has and train has not, a test split or a JSON of which no
/// picture is there, missing columns, labels that skip,
/// a saved split of other data, …; ConfigError for options or a file of class names that do not fit.
Dataset load_own_dataset(const std::filesystem::path& path, const OwnDatasetOptions& options);

/// Splits class folders as CoOp's `read_and_split_data`: classes and pictures in their order, each class
/// shuffled by `random.shuffle` and cut at round(n · train fraction) and round(n · val fraction) further,
/// halves to even; at least one picture of each class in train and in test. Paths and folder names stay as
/// they are. Throws DataError for a class of fewer than two.
Dataset split_class_folders(const std::string& name, const std::vector<ClassFolder>& classes,
                            const SplitOptions& options);

/// Writes CoOp's split JSON, atomically: paths relative to `image_folder`, which is kept, relative to the
/// file, under the key `image_folder` (CoOp's own reader ignores it). Throws ConfigError if it cannot be
/// written, DataError for a path that is no UTF-8, which JSON cannot hold.
void write_coop_split(const std::filesystem::path& file, const Dataset& dataset,
                      const std::filesystem::path& image_folder);

}  // namespace clip_lora::data
