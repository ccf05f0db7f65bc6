#include "clip_lora/data/base_to_new.hpp"

#include <algorithm>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::data {
namespace {

/// Labels begin … end − 1.
struct LabelRange {
  int begin = 0;
  int end = 0;
};

int class_count(const Dataset& dataset) {
  const auto count = static_cast<int>(dataset.class_names.size());
  if (count >= 2) return count;
  throw DataError("data set '" + dataset.name + "' has " + std::to_string(count) +
                  (count == 1 ? " class" : " classes") + ", expected at least two to have base and new ones");
}

std::vector<Item> items_of(const std::vector<Item>& items, const LabelRange& labels) {
  std::vector<Item> kept;
  for (const Item& item : items) {
    if (item.label >= labels.begin && item.label < labels.end)
      kept.push_back({item.image, item.label - labels.begin});
  }
  return kept;
}

Dataset part_of(const Dataset& dataset, const LabelRange& labels) {
  Dataset part;
  part.name = dataset.name;
  part.class_names.assign(dataset.class_names.begin() + labels.begin,
                          dataset.class_names.begin() + labels.end);
  part.train = items_of(dataset.train, labels);
  part.val = items_of(dataset.val, labels);
  part.test = items_of(dataset.test, labels);
  part.val_is_drawn_from_train = dataset.val_is_drawn_from_train;
  return part;
}

}  // namespace

int base_class_count(int classes) { return (classes + 1) / 2; }

Dataset base_classes(const Dataset& dataset) {
  return part_of(dataset, {0, base_class_count(class_count(dataset))});
}

Dataset new_classes(const Dataset& dataset) {
  const int count = class_count(dataset);
  return part_of(dataset, {base_class_count(count), count});
}

FewShot base_classes(const FewShot& few_shot, const Dataset& dataset) {
  const LabelRange base = {0, base_class_count(class_count(dataset))};
  const auto names_begin = dataset.class_names.begin();
  FewShot kept;
  kept.train = items_of(few_shot.train, base);
  kept.val = items_of(few_shot.val, base);
  std::ranges::copy_if(few_shot.short_classes, std::back_inserter(kept.short_classes), [&](const auto& name) {
    return std::find(names_begin, names_begin + base.end, name) != names_begin + base.end;
  });
  return kept;
}

}  // namespace clip_lora::data
