#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// Test images of ImageNet's classes from elsewhere: lists, no pixels. A classifier of the 1,000 is right
/// about an item if the label that it predicts, by the largest of the logits that count, means the item's
/// class: class_of(predicted) == item.label.
struct ShiftedImages {
  std::string name;
  std::vector<Item> items;  ///< label: one of ImageNet's, or with class_of_label a class of its own
  std::vector<int>
      counted_labels;  ///< of ImageNet, ascending: over whose logits is predicted; empty: all 1,000
  std::vector<int>
      class_of_label;  ///< [1000] by ImageNet label: the own class, −1 for none; empty: the label
  int border_px = 0;   ///< of each image, for image::Preprocessing::border_px

  int class_of(int imagenet_label) const {
    return class_of_label.empty() ? imagenet_label
                                  : class_of_label.at(static_cast<std::size_t>(imagenet_label));
  }
};

/// One of the five natural shifts of ImageNet.
struct RobustnessBenchmark {
  std::string name;
  std::vector<std::string> aliases;
  std::vector<std::string> folders;  ///< below --root_path, CoOp's first
  std::string contents;              ///< what the folder must hold, in words
  /// Reads the data set whose folder has been found below `root_path`. Throws as load_shifted_images.
  ShiftedImages (*read)(const std::filesystem::path& folder, const std::filesystem::path& root_path);
};

/// imagenet_v2 (matched frequency), imagenet_r, imagenet_sketch, objectnet and imagenet_a, in this order:
/// that of published tables.
const std::vector<RobustnessBenchmark>& robustness_benchmarks();

/// By name or alias; nullptr if there is none.
const RobustnessBenchmark* find_robustness_benchmark(const std::string& name);

/// One of them below `root_path`. ImageNet-A and -R predict among their own 200 classes; ObjectNet among the
/// ImageNet classes that its mapping files give its 113 shared classes, as in published figures (Wortsman et
/// al., "Robust fine-tuning of zero-shot models", CVPR 2022). Throws ConfigError for an unknown name (the
/// nearest is offered), MissingData without its folder, DataError for class folders that are missing, empty
/// or unknown, and for mapping files that are missing or broken.
ShiftedImages load_shifted_images(const std::string& name, const std::filesystem::path& root_path);

/// The WordNet ids ("n01440764") of ImageNet's labels 0 … 999, which are the ids in ascending order. Taken
/// from whatever below `root_path` tells them: the lines of imagenet/classnames.txt,
/// imagenet/LOC_synset_mapping.txt or wordnet_ids.txt, ImageNet's class folders, or ImageNet-Sketch's. Throws
/// DataError that lists all tried and what was wrong with each.
std::vector<std::string> find_wordnet_ids(const std::filesystem::path& root_path);

}  // namespace clip_lora::data
