#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

/// One labelled picture.
struct Item {
  std::string
      image;  ///< its path, absolute or relative to the working folder; a string, as there may be millions
  int label = 0;  ///< 0 … class_names.size() − 1
};

/// A classification data set: names and lists, no pixels.
struct Dataset {
  std::string name;
  std::vector<std::string> class_names;  ///< by label, `_` already replaced by spaces
  std::vector<Item> train;
  std::vector<Item> val;
  std::vector<Item> test;
  /// ImageNet: there is no val split; what validates a few-shot sample is drawn from train.
  bool val_is_drawn_from_train = false;
  /// What a user should know although the data can be used: class names given twice, a class without test
  /// images, …
  std::vector<std::string> warnings;
};

/// The items whose files do not exist.
std::vector<Item> missing_images(const std::vector<Item>& items);

/// Checks that the file of every item exists. Throws DataError with `what` ("test split"), how many are
/// missing of how many, the first three, and --allow_missing as the hint.
void require_images(const std::vector<Item>& items, const std::string& what);

/// Class names that several labels have, each once, in order of their labels.
std::vector<std::string> duplicate_names(const std::vector<std::string>& class_names);

/// What to warn of in lists that can be used: names given twice, classes without training or without test
/// images. A reader calls it last, for Dataset::warnings.
std::vector<std::string> find_oddities(const Dataset& dataset);

}  // namespace clip_lora::data
