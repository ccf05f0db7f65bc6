#include <algorithm>
#include <iterator>
#include <map>

#include "benchmark_list.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/image_folder.hpp"
#include "clip_lora/text/prompts.hpp"
#include "id_name_lines.hpp"
#include "paths.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& reason) { throw DataError("data set 'imagenet': " + reason); }

/// The folder that holds `train` and `val`.
fs::path find_image_folder(const fs::path& folder) {
  for (const fs::path& candidate : {folder / "images", folder}) {
    if (is_folder(candidate / "train") && is_folder(candidate / "val")) return candidate;
  }
  const bool no_val = is_folder(folder / "images/train") || is_folder(folder / "train");
  const std::string missing = no_val ? "val" : "train";
  fail("no folder '" + (folder / "images" / missing).string() + "', and no '" + (folder / missing).string() +
       "' either (hint: DATASETS.md shows the tree)");
}

/// The classes of `train` or `val`, each with at least one picture.
std::vector<ClassFolder> list_classes(const fs::path& folder) {
  std::vector<ClassFolder> classes = list_class_folders(folder, HiddenFiles::kKeep);
  if (classes.empty()) {
    const bool flat = !list_images(folder, HiddenFiles::kKeep).empty();
    fail("'" + folder.string() + "' has no class folders" +
         (flat ? ", its pictures lie side by side (hint: move each into the folder of its class, n01440764 "
                 "and so on; "
                 "DATASETS.md has the commands)"
               : ", expected n01440764 and so on"));
  }
  std::vector<std::string> empty;
  for (const ClassFolder& folder_of_class : classes) {
    if (folder_of_class.images.empty()) empty.push_back(folder_of_class.name);
  }
  if (!empty.empty())
    fail("'" + folder.string() + "': class folders without pictures: " + join_quoted(empty));
  return classes;
}

std::vector<std::string> names_of(const std::vector<ClassFolder>& classes) {
  std::vector<std::string> names;
  for (const ClassFolder& folder : classes) names.push_back(folder.name);
  return names;
}

/// Those of `names` that `others` lacks; both sorted.
std::vector<std::string> only_in(const std::vector<std::string>& names,
                                 const std::vector<std::string>& others) {
  std::vector<std::string> result;
  std::set_difference(names.begin(), names.end(), others.begin(), others.end(), std::back_inserter(result));
  return result;
}

void require_same_classes(const std::vector<std::string>& train, const std::vector<std::string>& val) {
  if (train == val) return;
  const auto only_train = only_in(train, val);
  const auto only_val = only_in(val, train);
  std::string difference;
  if (!only_train.empty()) difference += "; only in train: " + join_quoted(only_train, 3);
  if (!only_val.empty()) difference += "; only in val: " + join_quoted(only_val, 3);
  fail("train and val have other class folders, " + std::to_string(train.size()) + " and " +
       std::to_string(val.size()) + difference);
}

/// CoOp's file: a line "n01440764 tench" for each folder.
std::vector<std::string> names_from_file(const fs::path& file, const std::vector<std::string>& folders) {
  std::map<std::string, std::string> names;
  for (const IdNameLine& line : read_id_name_lines(file)) names[line.id] = line.name;
  std::vector<std::string> class_names, unnamed;
  for (const std::string& folder : folders) {
    const auto found = names.find(folder);
    if (found == names.end()) {
      unnamed.push_back(folder);
    } else {
      class_names.push_back(with_spaces(found->second));
    }
  }
  if (!unnamed.empty())
    fail("'" + file.string() + "' has no line for the class folders " + join_quoted(unnamed));
  return class_names;
}

/// CLIP's names are in the order of the folders' names, and there are no folders but those.
std::vector<std::string> names_of_clip(const fs::path& names_file, const std::vector<std::string>& folders) {
  const std::vector<std::string>& names = text::imagenet_class_names();
  if (folders.size() != names.size()) {
    fail("train has " + std::to_string(folders.size()) + " class folders, CLIP's class names are for " +
         std::to_string(names.size()) + " (hint: '" + names_file.string() +
         "' with a line \"n01440764 tench\" for each folder names any others)");
  }
  return names;
}

std::vector<Item> items_of(std::vector<ClassFolder> classes) {
  std::size_t count = 0;
  for (const ClassFolder& folder : classes) count += folder.images.size();
  std::vector<Item> items;
  items.reserve(count);  // exactly: a list that grows has room for as much again in the end
  for (std::size_t label = 0; label < classes.size(); ++label) {
    for (std::string& image : classes[label].images)
      items.push_back({std::move(image), static_cast<int>(label)});
    classes[label] = {};
  }
  return items;
}

Dataset read_imagenet(const fs::path& folder) {
  const fs::path images = find_image_folder(folder);
  std::vector<ClassFolder> test = list_classes(images / "val");
  std::vector<ClassFolder> train = list_classes(images / "train");
  const auto folders = names_of(train);
  require_same_classes(folders, names_of(test));
  const fs::path names_file = folder / "classnames.txt";
  Dataset dataset;
  dataset.name = "imagenet";
  dataset.class_names =
      is_there(names_file) ? names_from_file(names_file, folders) : names_of_clip(names_file, folders);
  dataset.train = items_of(std::move(train));
  dataset.test = items_of(std::move(test));
  dataset.val_is_drawn_from_train = true;
  dataset.warnings = find_oddities(dataset);
  return dataset;
}

}  // namespace

Benchmark imagenet() {
  return {.name = "imagenet",
          .aliases = {},
          .folders = {"imagenet"},
          .contents = "images/train/ and images/val/, or train/ and val/, of class folders",
          .templates = text::imagenet_templates(),
          .read = read_imagenet};
}

}  // namespace clip_lora::data
