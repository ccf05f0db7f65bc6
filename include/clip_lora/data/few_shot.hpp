#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

struct FewShot {
  std::vector<Item> train;  ///< shots per class
  std::vector<Item> val;    ///< min(shots, 4) per class
  /// Names of the classes with fewer training images than are drawn, some of which are there more than once.
  std::vector<std::string> short_classes;
};

/// The few-shot split of `seed`, the same files as the reference's: with CPython's generator, first val, then
/// train; for each class in order of first appearance in its split, sample without replacement if it has
/// enough items, else choices with replacement (CoOp's generate_fewshot_dataset). Where val is drawn from
/// train (ImageNet), one sample of shots + min(shots, 4) per class: the first `shots` train, the rest val; a
/// class with fewer, at which the reference gives up, is drawn with replacement as elsewhere. shots ≥ 1.
FewShot sample_few_shot(const Dataset& dataset, int shots, std::int64_t seed);

}  // namespace clip_lora::data
