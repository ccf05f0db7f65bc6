#include <algorithm>
#include <array>
#include <map>

#include "clip_lora/core/errors.hpp"
#include "own_data.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

constexpr auto kExpected =
    "expected one folder per class, or 'train' and 'test' (and 'val') with one folder per class in each";

/// What lies directly in a folder, hidden names aside.
struct Listing {
  std::vector<std::string> folders;
  std::size_t pictures = 0;
};

Listing list(const fs::path& folder) {
  Listing listing;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    std::error_code ignored;
    const std::string name = entry->path().filename().string();
    if (name.starts_with('.')) continue;
    if (entry->is_directory(ignored)) {
      listing.folders.push_back(name);
    } else if (has_image_extension(name)) {
      ++listing.pictures;
    }
  }
  if (error) throw DataError(own_data(folder) + "it cannot be read: " + error.message());
  std::sort(listing.folders.begin(), listing.folders.end());
  return listing;
}

/// The folders' names that stand for a split, however they are capitalised.
struct SplitFolders {
  std::string train, val, test;     // "" if there is none
  std::vector<std::string> others;  // folders that are no split's
};

SplitFolders find_split_folders(const fs::path& folder, const Listing& listing) {
  SplitFolders found;
  const std::map<std::string, std::string*> splits = {{"train", &found.train},
                                                      {"val", &found.val},
                                                      {"valid", &found.val},
                                                      {"validation", &found.val},
                                                      {"test", &found.test}};
  for (const auto& name : listing.folders) {
    const auto split = splits.find(lower_case(name));
    if (split == splits.end()) {
      found.others.push_back(name);
    } else if (!split->second->empty()) {
      throw DataError(own_data(folder) + "'" + *split->second + "' and '" + name +
                      "' stand for the same split");
    } else {
      *split->second = name;
    }
  }
  return found;
}

/// ": its 12 files are of kinds that are not read (.heic 11, .txt 1)" for a folder without pictures, or "".
std::string other_files_in(const fs::path& folder) {
  constexpr auto kOptions = fs::directory_options::skip_permission_denied;
  std::map<std::string, std::size_t> counts;
  std::size_t total = 0;
  std::error_code error;
  for (fs::recursive_directory_iterator file(folder, kOptions, error), end; !error && file != end;
       file.increment(error)) {
    std::error_code ignored;
    if (file->path().filename().string().starts_with('.') || !file->is_regular_file(ignored)) continue;
    const std::string extension = lower_case(file->path().extension().string());
    ++counts[extension.empty() ? "no extension" : extension];
    ++total;
  }
  if (total == 0) return {};
  std::vector<std::string> kinds;
  for (const auto& [kind, count] : counts) kinds.push_back(kind + " " + std::to_string(count));
  return ": its " + std::to_string(total) + (total == 1 ? " file is" : " files are") +
         " of kinds that are not read (" + join_capped(kinds) + ")";
}

void require_pictures(const fs::path& folder, const std::vector<ClassFolder>& classes) {
  std::vector<std::string> empty;
  for (const auto& found : classes) {
    if (found.images.empty()) empty.push_back(found.name);
  }
  if (empty.empty()) return;
  const bool one = empty.size() == 1;
  throw DataError(own_data(folder) + (one ? "class " : "classes ") + join_quoted(empty) +
                  (one ? " has no pictures" : " have no pictures") + other_files_in(folder / empty.front()) +
                  " (hint: add some, or remove the folder)");
}

/// A split may lack some of the classes, but not all.
void require_any_picture(const fs::path& folder, const std::vector<ClassFolder>& classes) {
  if (std::any_of(classes.begin(), classes.end(), [](const auto& found) { return !found.images.empty(); }))
    return;
  throw DataError(own_data(folder) + "it has class folders, but no pictures in them" +
                  other_files_in(folder));
}

std::string pictures_without_class(const fs::path& folder, std::size_t count) {
  return own_data(folder) + std::to_string(count) + (count == 1 ? " picture lies" : " pictures lie") +
         " in no class's folder and " + (count == 1 ? "is" : "are") + " left out";
}

/// One split's class folders; at least one.
std::vector<ClassFolder> list_split(const fs::path& folder, std::vector<std::string>& warnings) {
  const Listing listing = list(folder);
  if (listing.folders.empty()) {
    const std::string found =
        listing.pictures > 0 ? "it has pictures, but no folders, " : "it has no folders, ";
    throw DataError(own_data(folder) + found + "expected one folder per class");
  }
  if (listing.pictures > 0) warnings.push_back(pictures_without_class(folder, listing.pictures));
  return list_class_folders(folder, HiddenFiles::kSkip);
}

Dataset load_split_folders(const fs::path& folder, const SplitFolders& splits) {
  Dataset dataset;
  dataset.name = own_dataset_name(folder);
  const std::array<std::string, 3> names = {splits.train, splits.val, splits.test};
  std::array<std::vector<ClassFolder>, 3> listed;
  std::map<std::string, int> labels;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) continue;
    listed[i] = list_split(folder / names[i], dataset.warnings);
    for (const auto& found : listed[i]) labels.emplace(found.name, 0);
  }
  require_pictures(folder / splits.train, listed[0]);
  require_any_picture(folder / splits.test, listed[2]);
  for (auto& [name, label] : labels) {
    label = static_cast<int>(dataset.class_names.size());
    dataset.class_names.push_back(name);
  }
  const std::array items = {&dataset.train, &dataset.val, &dataset.test};
  for (std::size_t i = 0; i < items.size(); ++i) {
    for (auto& found : listed[i]) {
      for (auto& image : found.images) items[i]->push_back({std::move(image), labels.at(found.name)});
    }
  }
  if (!splits.others.empty()) {
    dataset.warnings.push_back(own_data(folder) +
                               "left out, since they are no split: " + join_quoted(splits.others));
  }
  return dataset;
}

UnsplitData list_unsplit(const fs::path& folder, const Listing& listing) {
  if (listing.folders.empty()) {
    throw DataError(own_data(folder) +
                    (listing.pictures > 0 ? "it has pictures, but no folders, " : "it has no folders, ") +
                    kExpected);
  }
  UnsplitData data;
  data.name = own_dataset_name(folder);
  data.path = folder;
  if (listing.pictures > 0) data.warnings.push_back(pictures_without_class(folder, listing.pictures));
  data.classes = list_class_folders(folder, HiddenFiles::kSkip);
  require_pictures(folder, data.classes);
  if (data.classes.size() == 1) {
    const std::string only = (folder / data.classes.front().name).string();
    throw DataError(own_data(folder) + "it has a single class, '" + data.classes.front().name +
                    "', expected at least two (hint: if the classes are the folders in it, give '" + only +
                    "')");
  }
  return data;
}

/// Whether `name`, though it could stand for a split, is a class among others: it holds pictures, no folders.
bool is_class(const fs::path& folder, const std::string& name, const SplitFolders& splits) {
  if (splits.others.empty()) return false;
  const Listing listing = list(folder / name);
  return listing.pictures > 0 && listing.folders.empty();
}

}  // namespace

Dataset load_own_folder(const fs::path& folder, const OwnDatasetOptions& options) {
  const Listing listing = list(folder);
  const SplitFolders splits = find_split_folders(folder, listing);
  if (splits.train.empty() && splits.test.empty()) {
    return split_or_reuse(list_unsplit(folder, listing), folder, options);
  }
  if (splits.train.empty() || splits.test.empty()) {
    const bool has_train = splits.test.empty();
    const std::string& only = has_train ? splits.train : splits.test;
    if (is_class(folder, only, splits)) return split_or_reuse(list_unsplit(folder, listing), folder, options);
    throw DataError(own_data(folder) + "it has '" + only + "', but no '" + (has_train ? "test" : "train") +
                    "', " + kExpected);
  }
  Dataset dataset = load_split_folders(folder, splits);
  warn_of_unused_fractions(dataset, folder, options.split);
  return dataset;
}

}  // namespace clip_lora::data
