#include "clip_lora/data/few_shot.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/python_random.hpp"

namespace clip_lora::data {
namespace {

constexpr int kMaxValidationShots = 4;

/// The items of each class, in the split's order; the classes in order of first appearance.
std::vector<std::vector<Item>> group_by_class(const std::vector<Item>& items) {
  std::vector<std::vector<Item>> groups;
  std::map<int, std::size_t> group_of_label;
  for (const Item& item : items) {
    const auto [found, is_new] = group_of_label.try_emplace(item.label, groups.size());
    if (is_new) groups.emplace_back();
    groups[found->second].push_back(item);
  }
  return groups;
}

std::vector<Item> sample_per_class(const std::vector<Item>& items, std::size_t shots, PythonRandom& random) {
  std::vector<Item> sampled;
  for (const auto& group : group_by_class(items)) {
    const auto indices =
        group.size() >= shots ? random.sample(group.size(), shots) : random.choices(group.size(), shots);
    for (const std::size_t index : indices) sampled.push_back(group[index]);
  }
  return sampled;
}

}  // namespace

FewShot sample_few_shot(const Dataset& dataset, int shots, std::int64_t seed) {
  if (shots < 1) throw ConfigError("shots is " + std::to_string(shots) + ", expected at least 1");
  PythonRandom random(seed);
  FewShot few_shot;
  // The order matters: both draw from one stream, and the reference asks for val first.
  few_shot.val =
      sample_per_class(dataset.val, static_cast<std::size_t>(std::min(shots, kMaxValidationShots)), random);
  few_shot.train = sample_per_class(dataset.train, static_cast<std::size_t>(shots), random);
  return few_shot;
}

}  // namespace clip_lora::data
