#include "clip_lora/data/own_dataset.hpp"

#include <algorithm>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/class_names.hpp"
#include "own_data.hpp"
#include "paths.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

std::string extension_of(const fs::path& path) { return lower_case(path.extension().string()); }

/// Training needs every class, and prompts need text.
void check_classes(const Dataset& dataset, const fs::path& path) {
  require_classes(dataset.class_names.size(), dataset.class_names.front(), path);
  for (const auto& name : dataset.class_names) {
    if (line_without_utf8(name))
      throw DataError(own_data(path) + "class name '" + name + "' is not valid UTF-8");
  }
  std::vector<bool> is_trained(dataset.class_names.size(), false);
  for (const Item& item : dataset.train) is_trained[static_cast<std::size_t>(item.label)] = true;
  std::vector<std::string> untrained;
  for (std::size_t label = 0; label < is_trained.size(); ++label) {
    if (!is_trained[label]) untrained.push_back(dataset.class_names[label]);
  }
  if (untrained.empty()) return;
  throw DataError(own_data(path) + "train has no pictures of " + join_quoted(untrained) +
                  ", which val or test has");
}

/// A folder or label by the name that a file of class names gives it: as it stands, or with spaces for
/// underscores.
const std::string* find_class(const std::vector<std::string>& class_names, const std::string& name) {
  auto found = std::find(class_names.begin(), class_names.end(), name);
  if (found == class_names.end()) {
    found = std::find_if(class_names.begin(), class_names.end(), [&](const std::string& class_name) {
      return with_spaces(class_name) == with_spaces(name);
    });
  }
  return found == class_names.end() ? nullptr : &*found;
}

void rename_classes(Dataset& dataset, const fs::path& file) {
  const ClassNames given = read_class_names(file);
  const std::string source = "file of class names '" + file.string() + "': ";
  if (given.renamed.empty()) {
    if (given.names.size() != dataset.class_names.size()) {
      throw ConfigError(source + "it has " + std::to_string(given.names.size()) + " names, expected " +
                        std::to_string(dataset.class_names.size()) + ", one per class in the order " +
                        join_quoted(dataset.class_names, 3));
    }
    dataset.class_names = given.names;
    return;
  }
  const std::vector<std::string> own_names = dataset.class_names;
  for (const auto& [folder, name] : given.renamed) {
    const std::string* found = find_class(own_names, folder);
    if (found == nullptr) {
      throw ConfigError(source + "'" + folder + "' is no class of the data, which has " +
                        join_quoted(own_names, 3) + did_you_mean(folder, own_names));
    }
    dataset.class_names[static_cast<std::size_t>(found - own_names.data())] = name;
  }
}

void warn_of_numbers(Dataset& dataset, const fs::path& path) {
  if (!std::all_of(dataset.class_names.begin(), dataset.class_names.end(), is_digits)) return;
  dataset.warnings.push_back(
      own_data(path) + "the class names are numbers, which mean little to CLIP (hint: --class_names FILE)");
}

Dataset load_by_kind(const fs::path& path, const OwnDatasetOptions& options) {
  if (is_folder(path)) return load_own_folder(path, options);
  if (!is_there(path)) throw DataError(own_data(path) + "there is no such folder or file");
  if (extension_of(path) == ".csv") return load_own_csv(path, options);
  if (extension_of(path) == ".json") {
    Dataset dataset = load_own_json(path);
    warn_of_unused_fractions(dataset, path, options.split);
    return dataset;
  }
  throw DataError(own_data(path) + "expected a folder, a .csv or a .json file");
}

}  // namespace

void require_classes(std::size_t count, const std::string& only, const fs::path& path) {
  if (count >= 2) return;
  throw DataError(own_data(path) + "it has a single class, '" + only + "', expected at least two");
}

std::string own_data(const fs::path& path) { return "own data '" + path.string() + "': "; }

void warn_of_unused_fractions(Dataset& dataset, const fs::path& path, const SplitOptions& options) {
  const SplitOptions defaults;
  if (options.test_fraction == defaults.test_fraction && options.val_fraction == defaults.val_fraction)
    return;
  dataset.warnings.push_back(
      own_data(path) + "it comes with a split, so that --test_fraction and --val_fraction play no part");
}

bool is_own_dataset(const std::string& value) {
  if (find_benchmark(value) != nullptr) return false;
  const std::string extension = extension_of(value);
  std::error_code ignored;  // `value` may be any text
  return fs::is_directory(value, ignored) || extension == ".csv" || extension == ".json";
}

std::string own_dataset_name(const fs::path& path) {
  fs::path whole = fs::absolute(path).lexically_normal();
  if (!whole.has_filename()) whole = whole.parent_path();  // "photos/"
  return (is_folder(whole) ? whole.filename() : whole.stem()).string();
}

Dataset load_own_dataset(const fs::path& path, const OwnDatasetOptions& options) {
  options.split.validate();
  Dataset dataset = load_by_kind(path, options);
  check_classes(dataset, path);
  if (!options.class_names.empty()) rename_classes(dataset, options.class_names);
  std::transform(dataset.class_names.begin(), dataset.class_names.end(), dataset.class_names.begin(),
                 with_spaces);
  warn_of_numbers(dataset, path);
  const auto oddities = find_oddities(dataset);
  dataset.warnings.insert(dataset.warnings.end(), oddities.begin(), oddities.end());
  return dataset;
}

}  // namespace clip_lora::data
