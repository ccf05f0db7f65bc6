#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "id_name_lines.hpp"
#include "paths.hpp"
#include "robustness_readers.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kBorder = 2;  // pixels, red, which marks its images as not to be trained on

/// ObjectNet's mappings/: what its folders show, and which of ImageNet's classes that is. The ImageNet
/// classes have three numberings there: their names, the line of each in a list, and PyTorch's label.
class Mappings {
 public:
  explicit Mappings(const fs::path& folder) : folder_(folder) {
    std::vector<std::string> missing;
    for (const char* name : {kFolders, kClasses, kLabels, kNames}) {
      if (!is_there(folder / name)) missing.emplace_back(name);
    }
    if (missing.empty()) return;
    throw DataError("data set 'objectnet': '" + folder.string() + "' has no " + join_quoted(missing) +
                    " (hint: the data set's archive has them, DATASETS.md shows the tree)");
  }

  /// By folder: the ImageNet labels that are right for its images; folders of other objects are left out.
  std::map<std::string, std::vector<int>> labels_of_folders() const {
    const std::map<std::string, int> label_of_name = labels_by_name();
    const Json folders = read_json(kFolders);
    std::map<std::string, std::string> folder_of_class;
    for (const auto& [folder, name] : folders.items())
      folder_of_class[text_of(kFolders, folder, name)] = folder;
    std::map<std::string, std::vector<int>> labels;
    const Json classes = read_json(kClasses);
    for (const auto& [name, imagenet_names] : classes.items()) {
      const auto folder = folder_of_class.find(name);
      if (folder == folder_of_class.end()) fail(kClasses, "'" + name + "' is no object of " + kFolders);
      for (const std::string& imagenet_name : split(text_of(kClasses, name, imagenet_names))) {
        const auto label = label_of_name.find(imagenet_name);
        if (label == label_of_name.end()) {
          fail(kClasses,
               "'" + name + "' is ImageNet's '" + imagenet_name + "', which is no line of " + kNames);
        }
        labels[folder->second].push_back(label->second);
      }
    }
    if (labels.empty()) fail(kClasses, "it is empty, expected the classes that are ImageNet's, too");
    return labels;
  }

 private:
  static constexpr const char* kFolders = "folder_to_objectnet_label.json";
  static constexpr const char* kClasses = "objectnet_to_imagenet_1k.json";
  static constexpr const char* kLabels = "pytorch_to_imagenet_2012_id.json";
  static constexpr const char* kNames = "imagenet_to_label_2012_v2";

  std::map<std::string, int> labels_by_name() const {
    const std::vector<std::string> names = read_lines(folder_ / kNames);
    if (names.size() != kImageNetClasses) {
      fail(kNames, "it has " + std::to_string(names.size()) + " lines, expected 1,000");
    }
    const Json lines = read_json(kLabels);
    std::map<std::string, int> labels;
    for (const auto& [label, line] : lines.items()) {
      constexpr std::size_t kLongest = 3;  // "999"
      const bool is_label = !label.empty() && is_digits(label) && label.size() <= kLongest;
      if (!is_label || !line.is_number_unsigned() || line.get<std::uint64_t>() >= names.size()) {
        fail(kLabels, "'" + label + "' is " + io::brief(line) + ", expected labels and lines from 0 to 999");
      }
      labels[names[line.get<std::size_t>()]] = std::stoi(label);
    }
    return labels;
  }

  /// "analog clock; digital clock".
  static std::vector<std::string> split(std::string_view names) {
    std::vector<std::string> all;
    while (!names.empty()) {
      const std::size_t end = names.find(';');
      all.emplace_back(trimmed(names.substr(0, end)));
      names = end == std::string_view::npos ? std::string_view() : names.substr(end + 1);
    }
    return all;
  }

  std::string text_of(const char* file, const std::string& name, const Json& value) const {
    if (!value.is_string()) fail(file, "'" + name + "' is " + io::brief(value) + ", expected a string");
    return value.get<std::string>();
  }

  Json read_json(const char* name) const {
    const auto text = read_text_file(folder_ / name);
    if (!text) fail(name, "it cannot be read");
    try {
      return io::parse_json_object(*text, prefix(name));
    } catch (const CheckpointError& error) {  // a mapping is data
      throw DataError(error.what());
    }
  }

  std::string prefix(const char* file) const {
    return "data set 'objectnet': '" + (folder_ / file).string() + "': ";
  }

  [[noreturn]] void fail(const char* file, const std::string& reason) const {
    throw DataError(prefix(file) + reason);
  }

  fs::path folder_;
};

/// The folders of `wanted` with their pictures, in the order of their names.
std::vector<ClassFolder> list_wanted(const fs::path& folder,
                                     const std::map<std::string, std::vector<int>>& wanted) {
  if (!is_folder(folder)) {
    throw DataError("data set 'objectnet': no folder '" + folder.string() +
                    "' (hint: DATASETS.md shows the tree)");
  }
  std::vector<ClassFolder> classes = list_class_folders(folder, HiddenFiles::kSkip);
  std::erase_if(classes, [&](const auto& of_class) {
    return !wanted.contains(of_class.name) || of_class.images.empty();
  });
  std::vector<std::string> missing;
  for (const auto& [wanted_name, labels] : wanted) {
    const auto is_it = [&name = wanted_name](const auto& of_class) { return of_class.name == name; };
    if (std::none_of(classes.begin(), classes.end(), is_it)) missing.push_back(wanted_name);
  }
  if (missing.empty()) return classes;
  throw DataError("data set 'objectnet': '" + folder.string() + "': " + std::to_string(missing.size()) +
                  " of " + std::to_string(wanted.size()) +
                  " class folders are missing or empty: " + join_quoted(missing));
}

}  // namespace

ShiftedImages read_objectnet(const fs::path& folder, const fs::path& /*root_path*/) {
  const auto labels_of = Mappings(folder / "mappings").labels_of_folders();
  ShiftedImages found;
  found.name = "objectnet";
  found.class_of_label.assign(kImageNetClasses, -1);
  found.border_px = kBorder;
  int own_class = 0;
  for (ClassFolder& of_class : list_wanted(folder / "images", labels_of)) {
    for (const int label : labels_of.at(of_class.name)) {
      int& known = found.class_of_label.at(static_cast<std::size_t>(label));
      if (known >= 0 && known != own_class) {
        throw DataError("data set 'objectnet': its mappings give ImageNet's label " + std::to_string(label) +
                        " to two classes, '" + of_class.name + "' is the second");
      }
      known = own_class;
      found.counted_labels.push_back(label);
    }
    for (std::string& image : of_class.images) found.items.push_back({std::move(image), own_class});
    ++own_class;
  }
  std::sort(found.counted_labels.begin(), found.counted_labels.end());
  const auto repeated = std::unique(found.counted_labels.begin(), found.counted_labels.end());
  found.counted_labels.erase(repeated, found.counted_labels.end());
  return found;
}

}  // namespace clip_lora::data
