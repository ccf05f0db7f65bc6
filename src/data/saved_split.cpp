#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "own_data.hpp"
#include "split_json.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using OrderedJson = nlohmann::ordered_json;

constexpr auto kImageFolder = "image_folder";

/// "" is the working folder.
fs::path folder_of(const fs::path& file) {
  return file.has_parent_path() ? file.parent_path() : fs::path(".");
}

std::string dumped(const OrderedJson& json) {
  try {
    return json.dump();
  } catch (const OrderedJson::type_error&) {
    throw DataError("a split in JSON cannot name " +
                    json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) +
                    ", which is not valid UTF-8 (hint: rename the file or folder)");
  }
}

/// An item's path below `image_folder`, or an absolute one where there is no way there.
std::string path_below(const fs::path& image_folder, const std::string& image) {
  const fs::path relative = fs::path(image).lexically_relative(image_folder);
  return relative.empty() ? fs::absolute(image).string() : relative.string();
}

/// One entry a line.
std::string entries(const std::vector<Item>& items, const Dataset& dataset, const fs::path& image_folder) {
  std::string text;
  for (const Item& item : items) {
    const auto& name = dataset.class_names[static_cast<std::size_t>(item.label)];
    text += text.empty() ? "\n" : ",\n";
    text += dumped(OrderedJson::array({path_below(image_folder, item.image), item.label, name}));
  }
  return text;
}

/// `keys` and the three splits.
void write_split(const fs::path& file, const Dataset& dataset, const fs::path& image_folder,
                 OrderedJson keys) {
  const fs::path folder = image_folder.empty() ? fs::path(".") : image_folder;
  std::error_code error;
  const fs::path from_file = fs::relative(folder, folder_of(file), error);
  keys[kImageFolder] = error || from_file.empty() ? fs::absolute(folder).string() : from_file.string();
  std::string text = "{";
  for (const auto& [key, value] : keys.items()) text += dumped(key) + ": " + dumped(value) + ",\n";
  text += "\"train\": [" + entries(dataset.train, dataset, folder);
  text += "],\n\"val\": [" + entries(dataset.val, dataset, folder);
  text += "],\n\"test\": [" + entries(dataset.test, dataset, folder) + "]}\n";
  io::remove_temporaries_of(file);
  io::write_atomically(file, text);
}

OrderedJson keys_from(const SplitOptions& options) {
  return {{"test_fraction", options.test_fraction},
          {"val_fraction", options.val_fraction},
          {"seed", options.seed}};
}

/// A split whose paths lead nowhere is told here, where the reason is known. Throws DataError.
void require_any_picture(const Dataset& dataset, const fs::path& file) {
  constexpr std::size_t kTried = 20;  // mostly one of them is there
  const auto& train = dataset.train;
  const auto end = train.begin() + static_cast<std::ptrdiff_t>(std::min(kTried, train.size()));
  if (missing_images({train.begin(), end}).size() < std::min(kTried, train.size())) return;
  for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
    if (missing_images(*items).size() < items->size()) return;
  }
  throw DataError("split file '" + file.string() +
                  "': none of its pictures is there; the first was looked for at '" + train.front().image +
                  "' (hint: paths are relative to the folder under its key '" + kImageFolder +
                  "', or without that key to the file's own folder)");
}

/// A split that an earlier run kept, against what is there now.
class KeptSplit {
 public:
  KeptSplit(const fs::path& file, const UnsplitData& data, const fs::path& image_folder)
      : file_(file), data_(data), image_folder_(image_folder) {}

  Dataset read(const SplitOptions& options) {
    Dataset kept = read_coop_split(data_.name, file_, image_folder_, ValSplit::kOptional);
    require_same_folder();
    require_same_options(options);
    require_same_classes(kept.class_names);
    kept.warnings.clear();
    for (std::size_t label = 0; label < data_.classes.size(); ++label) {
      kept.class_names[label] = data_.classes[label].name;  // unlike the file's, with underscores
      for (const auto& image : data_.classes[label].images) listed_[key(image)] = static_cast<int>(label);
    }
    for (auto* items : {&kept.train, &kept.val, &kept.test}) {
      std::erase_if(*items, [&](const Item& item) { return is_unlisted(item); });
    }
    warn(kept);
    return kept;
  }

 private:
  static std::string key(const std::string& image) { return fs::path(image).lexically_normal().string(); }

  /// Takes a picture off the list of those that are new. One that is missing stays: the run will tell.
  bool is_unlisted(const Item& item) {
    const auto found = listed_.find(key(item.image));
    if (found != listed_.end()) {
      if (found->second != item.label) {
        fail("'" + item.image + "' is of class '" + class_name(item.label) + "' in it, but of '" +
             class_name(found->second) + "' now");
      }
      ++in_both_;
      return false;
    }
    std::error_code ignored;
    const bool is_there = fs::exists(item.image, ignored);
    unlisted_ += is_there ? 1 : 0;
    return is_there;
  }

  void warn(Dataset& kept) const {
    const std::string where = "split '" + file_.string() + "': ";
    const std::size_t added = listed_.size() - std::min(in_both_, listed_.size());
    const std::string hint = " (hint: delete the file to split anew)";
    if (added > 0) {
      kept.warnings.push_back(where + std::to_string(added) + (added == 1 ? " picture is" : " pictures are") +
                              " not in it and left out; it was made before they were added" + hint);
    }
    if (unlisted_ > 0) {
      kept.warnings.push_back(where + std::to_string(unlisted_) + " of its pictures " +
                              (unlisted_ == 1 ? "is" : "are") + " no longer listed and left out" + hint);
    }
  }

  void require_same_folder() const {
    const fs::path kept = image_folder_of(file_);
    std::error_code error;
    if (fs::equivalent(kept, image_folder_.empty() ? fs::path(".") : image_folder_, error)) return;
    fail("it belongs to the folder '" + kept.lexically_normal().string() + "', this run has '" +
         image_folder_.string() + "'");
  }

  void require_same_options(const SplitOptions& options) const {
    const nlohmann::json kept = read_split_json(file_);
    const OrderedJson wanted = keys_from(options);
    for (const auto& [key, expected] : wanted.items()) {
      if (!kept.contains(key) || !kept[key].is_number()) {
        fail("it has no number under '" + key + "', which kept splits have");
      }
      if (kept[key] == nlohmann::json(expected)) continue;
      // --seed is that of the training; a split has its own.
      const std::string flag = key == "seed" ? "--split_seed" : "--" + key;
      throw ConfigError("split '" + file_.string() + "' was made with " + flag + " " + kept[key].dump() +
                        ", this run has " + flag + " " + expected.dump() +
                        " (hint: give the old value, or delete the file to split anew)");
    }
  }

  void require_same_classes(const std::vector<std::string>& kept) const {
    std::vector<std::string> now;
    for (const ClassFolder& folder : data_.classes) now.push_back(with_spaces(folder.name));
    if (kept == now) return;
    const auto only_in = [](const std::vector<std::string>& names, const std::vector<std::string>& others) {
      std::vector<std::string> result;
      for (const auto& name : names) {
        if (std::find(others.begin(), others.end(), name) == others.end()) result.push_back(name);
      }
      return result;
    };
    const auto added = only_in(now, kept);
    const auto gone = only_in(kept, now);
    std::string difference;
    if (!added.empty()) difference += "; new: " + join_quoted(added);
    if (!gone.empty()) difference += "; gone: " + join_quoted(gone);
    fail("it was made of other classes" + difference);
  }

  const std::string& class_name(int label) const {
    return data_.classes[static_cast<std::size_t>(label)].name;
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError("split '" + file_.string() + "', kept by an earlier run: " + reason +
                    " (hint: delete the file to split anew)");
  }

  const fs::path& file_;
  const UnsplitData& data_;
  const fs::path& image_folder_;
  std::unordered_map<std::string, int> listed_;  // labels by picture
  std::size_t in_both_ = 0;
  std::size_t unlisted_ = 0;
};

}  // namespace

fs::path image_folder_of(const fs::path& split_file) {
  const nlohmann::json keys = read_split_json(split_file);
  const auto found = keys.find(kImageFolder);
  if (found == keys.end()) return folder_of(split_file);
  if (!found->is_string()) {
    throw DataError("split file '" + split_file.string() + "': '" + kImageFolder + "' is a JSON " +
                    found->type_name() + ", expected a folder's path");
  }
  return folder_of(split_file) / found->get<std::string>();
}

void write_coop_split(const fs::path& file, const Dataset& dataset, const fs::path& image_folder) {
  write_split(file, dataset, image_folder, OrderedJson::object());
}

Dataset split_or_reuse(const UnsplitData& data, const fs::path& image_folder,
                       const OwnDatasetOptions& options) {
  std::error_code ignored;
  const bool is_kept = !options.saved_split.empty() && fs::exists(options.saved_split, ignored);
  Dataset dataset = is_kept ? KeptSplit(options.saved_split, data, image_folder).read(options.split)
                            : split_classes(data, options.split);
  dataset.warnings.insert(dataset.warnings.begin(), data.warnings.begin(), data.warnings.end());
  if (!is_kept && !options.saved_split.empty()) {
    write_split(options.saved_split, dataset, image_folder, keys_from(options.split));
  }
  return dataset;
}

Dataset load_own_json(const fs::path& file) {
  Dataset dataset = read_coop_split(own_dataset_name(file), file, image_folder_of(file), ValSplit::kOptional);
  dataset.warnings.clear();  // they are found again when the classes have got their names
  require_any_picture(dataset, file);
  return dataset;
}

}  // namespace clip_lora::data
