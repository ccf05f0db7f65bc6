#include "clip_lora/data/dataset.hpp"

#include <algorithm>
#include <map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/readers.hpp"

namespace clip_lora::data {
namespace {

using Reader = Dataset (*)(const std::filesystem::path& root_path);

const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> table = {
      {"caltech101", load_caltech101},
      {"eurosat", load_eurosat},
      {"shapes", load_shapes},
  };
  return table;
}

}  // namespace

std::vector<std::string> dataset_names() {
  std::vector<std::string> names;
  for (const auto& [name, reader] : readers()) names.push_back(name);
  return names;
}

Dataset load_dataset(const std::string& name, const std::filesystem::path& root_path) {
  const auto found = readers().find(name);
  if (found == readers().end()) {
    throw ConfigError("unknown data set '" + name + "', expected one of " + join_capped(dataset_names(), 20) +
                      did_you_mean(name, dataset_names()));
  }
  return found->second(root_path);
}

void require_images(const std::vector<Item>& items, const std::string& what) {
  constexpr std::size_t kShown = 3;
  std::vector<std::string> missing;
  for (const Item& item : items) {
    std::error_code ignored;
    if (!std::filesystem::exists(item.image, ignored))
      missing.push_back(std::string("'") + item.image.string() + "'");
  }
  if (missing.empty()) return;
  throw DataError(what + ": " + std::to_string(missing.size()) + " of " + std::to_string(items.size()) +
                  " images are missing: " + join_capped(missing, kShown));
}

}  // namespace clip_lora::data
