#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

/// One labelled picture.
struct Item {
  std::filesystem::path image;  ///< absolute, or relative to the working folder
  int label = 0;                ///< 0 … class_names.size() − 1
};

/// A classification data set: names and lists, no pixels.
struct Dataset {
  std::string name;
  std::vector<std::string> class_names;  ///< by label, `_` already replaced by spaces
  std::vector<Item> train;
  std::vector<Item> val;
  std::vector<Item> test;
};

/// Names that load_dataset knows, sorted.
std::vector<std::string> dataset_names();

/// The data set `name` under `root_path`, in CoOp's folder names or the reference's.
/// Throws ConfigError for an unknown name (the nearest is offered), DataError for a missing folder (all that were tried
/// are listed) or a broken split file.
Dataset load_dataset(const std::string& name, const std::filesystem::path& root_path);

/// Checks that the file of every item exists. Throws DataError with `what` ("train split"), how many are missing of how
/// many, and the first three.
void require_images(const std::vector<Item>& items, const std::string& what);

}  // namespace clip_lora::data
