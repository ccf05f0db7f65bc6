#include "clip_lora/data/dataset.hpp"

#include <map>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

/// Names of the classes that have no item.
std::vector<std::string> classes_without(const std::vector<Item>& items,
                                         const std::vector<std::string>& class_names) {
  std::vector<bool> seen(class_names.size());
  for (const Item& item : items) seen.at(static_cast<std::size_t>(item.label)) = true;
  std::vector<std::string> names;
  for (std::size_t label = 0; label < seen.size(); ++label) {
    if (!seen[label]) names.push_back(class_names[label]);
  }
  return names;
}

}  // namespace

std::vector<Item> missing_images(const std::vector<Item>& items) {
  // On a network file system the answers take long, but many can be waited for at once.
  std::vector<char> is_missing(items.size());
  parallel_for(items.size(), hardware_workers(), [&](std::size_t i) {
    std::error_code ignored;
    is_missing[i] = static_cast<char>(!std::filesystem::exists(items[i].image, ignored));
  });
  std::vector<Item> missing;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (is_missing[i]) missing.push_back(items[i]);
  }
  return missing;
}

void require_images(const std::vector<Item>& items, const std::string& what) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> missing;
  for (const Item& item : missing_images(items)) missing.push_back(item.image);
  if (missing.empty()) return;
  const std::string problem = what + ": " + std::to_string(missing.size()) + " of " +
                              std::to_string(items.size()) +
                              " images are missing: " + join_quoted(missing, kShown) +
                              " (hint: --allow_missing goes on without them)";
  if (missing.size() == items.size()) throw MissingData(problem);
  throw DataError(problem);
}

std::vector<std::string> duplicate_names(const std::vector<std::string>& class_names) {
  std::map<std::string, int> counts;
  for (const std::string& name : class_names) ++counts[name];
  std::vector<std::string> duplicates;
  std::set<std::string> listed;
  for (const std::string& name : class_names) {
    if (counts.at(name) > 1 && listed.insert(name).second) duplicates.push_back(name);
  }
  return duplicates;
}

std::vector<std::string> find_oddities(const Dataset& dataset) {
  std::vector<std::string> warnings;
  const auto duplicates = duplicate_names(dataset.class_names);
  if (!duplicates.empty())
    warnings.push_back("several classes have the same name: " + join_quoted(duplicates));
  const auto untrained = classes_without(dataset.train, dataset.class_names);
  if (!untrained.empty()) warnings.push_back("classes without training images: " + join_quoted(untrained));
  const auto untested = classes_without(dataset.test, dataset.class_names);
  if (!untested.empty()) warnings.push_back("classes without test images: " + join_quoted(untested));
  return warnings;
}

}  // namespace clip_lora::data
