#pragma once

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/few_shot.hpp"

namespace clip_lora::data {

// Generalisation from base to new classes (Zhou et al., "Conditional Prompt Learning for Vision-Language
// Models", CVPR 2022): trained on half of the classes, tested on either half among its own names. Classes in
// label order; the first ⌈n/2⌉ are base.

/// How many of `classes` are base.
int base_class_count(int classes);

/// The base classes with their items of each split; labels stay. Warnings stay with `dataset`. Throws
/// DataError for fewer than two classes.
Dataset base_classes(const Dataset& dataset);

/// The same of the new classes, whose labels begin at 0.
Dataset new_classes(const Dataset& dataset);

/// What a sample of all classes of `dataset` has of the base ones: the protocol samples first, so that the
/// images are those of the same seed for all classes.
FewShot base_classes(const FewShot& few_shot, const Dataset& dataset);

}  // namespace clip_lora::data
