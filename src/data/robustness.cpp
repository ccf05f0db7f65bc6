#include "clip_lora/data/robustness.hpp"

#include <algorithm>
#include <iterator>

#include "clip_lora/core/errors.hpp"
#include "paths.hpp"
#include "robustness_readers.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kSubset = 200;  // classes of ImageNet-A and ImageNet-R

[[noreturn]] void refuse(const std::string& name, const std::string& reason) {
  throw DataError("data set '" + name + "': " + reason);
}

void add_items(std::vector<Item>& items, ClassFolder& folder, int label) {
  for (std::string& image : folder.images) items.push_back({std::move(image), label});
}

/// Folders whose names are the labels.
ShiftedImages read_imagenet_v2(const fs::path& folder, const fs::path& /*root_path*/) {
  ShiftedImages found;
  found.name = "imagenet_v2";
  for (ClassFolder& of_class : list_shifted_classes(found.name, folder, kImageNetClasses)) {
    constexpr std::size_t kLongest = 3;  // "999"
    const bool is_number = is_digits(of_class.name) && of_class.name.size() <= kLongest;
    const int label = is_number ? std::stoi(of_class.name) : kImageNetClasses;
    if (label == kImageNetClasses || std::to_string(label) != of_class.name) {
      refuse(found.name, "'" + (folder / of_class.name).string() + "' is no class folder, expected 0 to 999");
    }
    add_items(found.items, of_class, label);
  }
  return found;
}

/// Folders whose names are WordNet ids.
ShiftedImages read_wordnet_folders(const std::string& name, std::vector<ClassFolder> classes,
                                   const std::vector<std::string>& ids) {
  ShiftedImages found;
  found.name = name;
  std::vector<std::string> unknown;
  for (ClassFolder& of_class : classes) {
    const auto id = std::lower_bound(ids.begin(), ids.end(), of_class.name);
    if (id == ids.end() || *id != of_class.name) {
      unknown.push_back(of_class.name);
      continue;
    }
    const auto label = static_cast<int>(id - ids.begin());
    add_items(found.items, of_class, label);
    found.counted_labels.push_back(label);
  }
  if (!unknown.empty()) refuse(name, "class folders that are none of ImageNet's: " + join_quoted(unknown));
  if (found.counted_labels.size() == kImageNetClasses) found.counted_labels.clear();  // all
  return found;
}

ShiftedImages read_imagenet_sketch(const fs::path& folder, const fs::path& root_path) {
  const std::string name = "imagenet_sketch";
  return read_wordnet_folders(name, list_shifted_classes(name, folder, kImageNetClasses),
                              find_wordnet_ids(root_path));
}

ShiftedImages read_imagenet_a(const fs::path& folder, const fs::path& root_path) {
  const std::string name = "imagenet_a";
  return read_wordnet_folders(name, list_shifted_classes(name, folder, kSubset), find_wordnet_ids(root_path));
}

ShiftedImages read_imagenet_r(const fs::path& folder, const fs::path& root_path) {
  const std::string name = "imagenet_r";
  return read_wordnet_folders(name, list_shifted_classes(name, folder, kSubset), find_wordnet_ids(root_path));
}

}  // namespace

const std::vector<std::string>& sketch_folders() {
  static const std::vector<std::string> folders = {"imagenet-sketch/images", "imagenet-sketch/sketch",
                                                   "imagenet-sketch", "sketch"};
  return folders;
}

std::vector<ClassFolder> list_shifted_classes(const std::string& name, const fs::path& folder,
                                              std::size_t expected) {
  std::vector<ClassFolder> classes = list_class_folders(folder, HiddenFiles::kSkip);
  std::vector<std::string> empty;
  for (const ClassFolder& of_class : classes) {
    if (of_class.images.empty()) empty.push_back(of_class.name);
  }
  if (!empty.empty()) {
    refuse(name, "'" + folder.string() + "': class folders without pictures: " + join_quoted(empty));
  }
  if (classes.size() != expected) {
    refuse(name, "'" + folder.string() + "' has " + std::to_string(classes.size()) +
                     " class folders, expected " + std::to_string(expected) +
                     " (hint: DATASETS.md shows the tree)");
  }
  return classes;
}

const std::vector<RobustnessBenchmark>& robustness_benchmarks() {
  static const std::vector<RobustnessBenchmark> all = {
      {"imagenet_v2",
       {"imagenetv2", "imagenet-v2"},
       {"imagenetv2/imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency-format-val",
        "imagenetv2-matched-frequency"},
       "the class folders 0 to 999",
       read_imagenet_v2},
      {"imagenet_r",
       {"imagenet-r"},
       {"imagenet-rendition/imagenet-r", "imagenet-r"},
       "200 class folders, n01443537 and so on",
       read_imagenet_r},
      {"imagenet_sketch",
       {"imagenet-sketch"},
       sketch_folders(),
       "1,000 class folders, n01440764 and so on",
       read_imagenet_sketch},
      {"objectnet",
       {},
       {"objectnet-1.0", "objectnet/objectnet-1.0", "objectnet", "ObjectNet"},
       "images/ and mappings/",
       read_objectnet},
      {"imagenet_a",
       {"imagenet-a"},
       {"imagenet-adversarial/imagenet-a", "imagenet-a"},
       "200 class folders, n01498041 and so on",
       read_imagenet_a}};
  return all;
}

const RobustnessBenchmark* find_robustness_benchmark(const std::string& name) {
  for (const RobustnessBenchmark& benchmark : robustness_benchmarks()) {
    const auto& aliases = benchmark.aliases;
    if (benchmark.name == name || std::find(aliases.begin(), aliases.end(), name) != aliases.end())
      return &benchmark;
  }
  return nullptr;
}

ShiftedImages load_shifted_images(const std::string& name, const fs::path& root_path) {
  const RobustnessBenchmark* benchmark = find_robustness_benchmark(name);
  if (benchmark == nullptr) {
    std::vector<std::string> names;
    for (const RobustnessBenchmark& known : robustness_benchmarks()) names.push_back(known.name);
    throw ConfigError("unknown shift of ImageNet '" + name + "', expected one of " + join_capped(names) +
                      did_you_mean(name, names));
  }
  return benchmark->read(first_folder(benchmark->name, benchmark->folders, root_path), root_path);
}

}  // namespace clip_lora::data
