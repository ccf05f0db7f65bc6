#include "clip_lora/data/coop_split.hpp"

#include <limits>
#include <map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "clip_lora/io/json_text.hpp"
#include "paths.hpp"
#include "split_json.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

using Json = nlohmann::json;

/// A label's class name and the entry that gave it, for the error about a second one.
struct NamedBy {
  std::string class_name;
  std::string entry;
};

/// Reads the three splits of one file and learns the class names on the way.
class SplitReader {
 public:
  SplitReader(const std::filesystem::path& file, const std::filesystem::path& image_folder)
      : file_(file), image_folder_(image_folder), json_(read_split_json(file)) {}

  std::vector<Item> read(const std::string& split) {
    const auto found = json_.find(split);
    if (found == json_.end()) fail("has no split '" + split + "', expected train, val and test");
    if (!found->is_array())
      fail("split '" + split + "' is a JSON " + found->type_name() + ", expected a list");
    if (found->empty()) fail("split '" + split + "' is empty, expected at least one entry");
    std::vector<Item> items;
    items.reserve(found->size());
    for (std::size_t i = 0; i < found->size(); ++i) {
      items.push_back(read_entry((*found)[i], split + "[" + std::to_string(i) + "]"));
    }
    return items;
  }

  /// Nothing for a split that is missing or empty.
  std::vector<Item> read_optional(const std::string& split) {
    const auto found = json_.find(split);
    return found == json_.end() || *found == Json::array() ? std::vector<Item>{} : read(split);
  }

  /// By label, with spaces for underscores. Throws if the labels are not 0 … C − 1.
  std::vector<std::string> class_names() const {
    std::vector<std::string> names;
    for (const auto& [label, named_by] : names_) {
      const int expected = static_cast<int>(names.size());
      if (label != expected) {
        fail(named_by.entry + " has label " + std::to_string(label) + ", but no entry has label " +
             std::to_string(expected) + ", expected labels without gaps from 0");
      }
      names.push_back(with_spaces(named_by.class_name));
    }
    return names;
  }

 private:
  Item read_entry(const Json& json, const std::string& entry) {
    if (!json.is_array() || json.size() != 3) {
      fail(entry + " is " + io::brief(json) + ", expected [relative path, label, class name]");
    }
    if (!json[0].is_string() || json[0].get_ref<const std::string&>().empty()) {
      fail(entry + " has the path " + io::brief(json[0]) + ", expected a string that is not empty");
    }
    if (!json[2].is_string() || json[2].get_ref<const std::string&>().empty()) {
      fail(entry + " has the class name " + io::brief(json[2]) + ", expected a string that is not empty");
    }
    const int label = read_label(json[1], entry);
    learn_name(label, json[2].get<std::string>(), entry);
    return {(image_folder_ / json[0].get_ref<const std::string&>()).string(), label};
  }

  int read_label(const Json& json, const std::string& entry) const {
    constexpr int kMax = std::numeric_limits<int>::max();
    // Compared as the type it has: a huge unsigned number must not turn negative on the way.
    const bool fits = json.is_number_unsigned() && json.get<std::uint64_t>() <= std::uint64_t{kMax};
    if (!fits) fail(entry + " has the label " + io::brief(json) + ", expected an integer from 0");
    return json.get<int>();
  }

  void learn_name(int label, const std::string& class_name, const std::string& entry) {
    const auto [known, is_new] = names_.try_emplace(label, NamedBy{class_name, entry});
    if (!is_new && known->second.class_name != class_name) {
      fail(entry + " names label " + std::to_string(label) + " '" + class_name + "', expected '" +
           known->second.class_name + "' as in " + known->second.entry);
    }
  }

  [[noreturn]] void fail(const std::string& reason) const {
    throw DataError("split file '" + file_.string() + "': " + reason);
  }

  std::filesystem::path file_;
  std::filesystem::path image_folder_;
  Json json_;
  std::map<int, NamedBy> names_;
};

}  // namespace

Dataset read_coop_split(const std::string& name, const std::filesystem::path& split_file,
                        const std::filesystem::path& image_folder, ValSplit val) {
  SplitReader reader(split_file, image_folder);
  Dataset dataset;
  dataset.name = name;
  dataset.train = reader.read("train");
  dataset.val = val == ValSplit::kRequired ? reader.read("val") : reader.read_optional("val");
  dataset.test = reader.read("test");
  dataset.class_names = reader.class_names();
  dataset.warnings = find_oddities(dataset);
  return dataset;
}

Dataset read_coop_folder(const std::string& name, const std::filesystem::path& folder,
                         const std::string& image_folder, const std::string& split_file) {
  if (!is_there(folder / split_file)) {
    throw DataError("data set '" + name + "': no split file '" + (folder / split_file).string() +
                    "' (hint: DATASETS.md says where it comes from)");
  }
  const auto images = image_folder.empty() ? folder : folder / image_folder;
  if (!is_folder(images)) {
    throw MissingData("data set '" + name + "': no image folder '" + images.string() +
                      "' (hint: DATASETS.md says where it comes from)");
  }
  return read_coop_split(name, folder / split_file, images);
}

}  // namespace clip_lora::data
