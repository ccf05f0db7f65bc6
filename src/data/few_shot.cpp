#include "clip_lora/data/few_shot.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/python_random.hpp"

namespace clip_lora::data {
namespace {

constexpr int kMaxValidationShots = 4;

/// The items of one class, as places in the split's list.
struct ClassItems {
  int label = 0;
  std::vector<std::size_t> places;
};

/// The items of each class in the split's order; the classes in order of first appearance.
std::vector<ClassItems> group_by_class(const std::vector<Item>& items) {
  std::vector<ClassItems> groups;
  std::map<int, std::size_t> group_of_label;
  for (std::size_t place = 0; place < items.size(); ++place) {
    const int label = items[place].label;
    const auto [found, is_new] = group_of_label.try_emplace(label, groups.size());
    if (is_new) groups.push_back({label, {}});
    groups[found->second].places.push_back(place);
  }
  return groups;
}

/// `count` items of one class, without replacement if it has enough.
std::vector<Item> draw(const std::vector<Item>& items, const ClassItems& group, std::size_t count,
                       PythonRandom& random) {
  const std::size_t size = group.places.size();
  std::vector<Item> drawn;
  for (const std::size_t index : size >= count ? random.sample(size, count) : random.choices(size, count)) {
    drawn.push_back(items[group.places[index]]);
  }
  return drawn;
}

void append(std::vector<Item>& items, const std::vector<Item>& more) {
  items.insert(items.end(), more.begin(), more.end());
}

std::vector<Item> sample_val(const std::vector<Item>& val, std::size_t shots, PythonRandom& random) {
  std::vector<Item> sampled;
  for (const ClassItems& group : group_by_class(val)) append(sampled, draw(val, group, shots, random));
  return sampled;
}

/// `train_shots` of each class for training and the next `val_shots` of the same draw for validation.
void sample_train(const Dataset& dataset, std::size_t train_shots, std::size_t val_shots,
                  PythonRandom& random, FewShot& few_shot) {
  for (const ClassItems& group : group_by_class(dataset.train)) {
    const std::size_t count = train_shots + val_shots;
    std::vector<Item> drawn = draw(dataset.train, group, count, random);
    append(few_shot.val, {drawn.begin() + static_cast<std::ptrdiff_t>(train_shots), drawn.end()});
    drawn.resize(train_shots);
    append(few_shot.train, drawn);
    if (group.places.size() < count) {
      few_shot.short_classes.push_back(dataset.class_names.at(static_cast<std::size_t>(group.label)));
    }
  }
}

}  // namespace

FewShot sample_few_shot(const Dataset& dataset, int shots, std::int64_t seed) {
  if (shots < 1) throw ConfigError("shots is " + std::to_string(shots) + ", expected at least 1");
  const auto train_shots = static_cast<std::size_t>(shots);
  const auto val_shots = static_cast<std::size_t>(std::min(shots, kMaxValidationShots));
  PythonRandom random(seed);
  FewShot few_shot;
  if (dataset.val_is_drawn_from_train) {
    sample_train(dataset, train_shots, val_shots, random, few_shot);
  } else {
    // The order matters: both draw from one stream, and the reference asks for val first.
    few_shot.val = sample_val(dataset.val, val_shots, random);
    sample_train(dataset, train_shots, /*val_shots=*/0, random, few_shot);
  }
  return few_shot;
}

}  // namespace clip_lora::data
