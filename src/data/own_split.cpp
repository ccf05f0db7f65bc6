#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <sstream>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/python_random.hpp"
#include "own_data.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

/// How many pictures of a class go where.
struct Counts {
  std::size_t train = 0, val = 0, test = 0;
};

/// What is left for training, free of what the subtraction of decimal fractions leaves: 1 − 0.3 − 0.2 is 0.5.
double train_fraction(const SplitOptions& options) {
  constexpr double kSteps = 1e9;
  return std::round((1.0 - options.test_fraction - options.val_fraction) * kSteps) / kSteps;
}

/// Python's round(count · fraction): halves to even.
std::size_t rounded(std::size_t count, double fraction) {
  return static_cast<std::size_t>(std::nearbyint(static_cast<double>(count) * fraction));
}

/// Of `total` ≥ 2 pictures. Test takes what rounding leaves, and, if that is nothing, one from val or else
/// from train.
Counts counts_of(std::size_t total, const SplitOptions& options) {
  Counts counts;
  counts.train = std::clamp<std::size_t>(rounded(total, train_fraction(options)), 1, total - 1);
  counts.val = std::min(rounded(total, options.val_fraction), total - counts.train - 1);
  counts.test = total - counts.train - counts.val;
  return counts;
}

void require_enough(const fs::path& path, const std::string& class_name, std::size_t count,
                    const char* what) {
  if (count >= 2) return;
  throw DataError(
      own_data(path) + "class '" + class_name + "' has " + std::to_string(count) + " " + what +
      ", expected at least 2 to have some in train and some in test (hint: add pictures, remove the "
      "class, or give the data a split of their own)");
}

Dataset named_like(const std::string& name, const std::vector<ClassFolder>& classes) {
  Dataset dataset;
  dataset.name = name;
  for (const ClassFolder& folder : classes) dataset.class_names.push_back(folder.name);
  return dataset;
}

/// Puts whole groups where a class still misses most of its pictures.
class GroupSplitter {
 public:
  GroupSplitter(const UnsplitData& data, const SplitOptions& options)
      : data_(data), options_(options), random_(options.seed) {}

  Dataset split() {
    Dataset dataset = named_like(data_.name, data_.classes);
    for (std::size_t label = 0; label < data_.classes.size(); ++label) {
      place_groups_of(data_.classes[label]);
      for (const Group& group : groups_in(data_.classes[label])) {
        auto& items = *std::array{&dataset.train, &dataset.val, &dataset.test}[place_.at(group.key)];
        for (const auto& image : group.images) items.push_back({image, static_cast<int>(label)});
      }
    }
    check_train_and_test(dataset);
    return dataset;
  }

 private:
  enum Place : std::size_t { kTrain, kVal, kTest, kPlaces };

  struct Group {
    std::string key;
    std::vector<std::string> images;  // of one class
  };

  /// The groups of one class may all have been placed by classes before it.
  void check_train_and_test(Dataset& dataset) const {
    const auto untrained = classes_without(dataset.train);
    if (!untrained.empty()) throw DataError(lacks("train", untrained));
    const auto untested = classes_without(dataset.test);
    if (!untested.empty()) dataset.warnings.push_back(lacks("test", untested));
  }

  std::vector<std::string> classes_without(const std::vector<Item>& items) const {
    std::vector<bool> has(data_.classes.size(), false);
    for (const Item& item : items) has[static_cast<std::size_t>(item.label)] = true;
    std::vector<std::string> names;
    for (std::size_t label = 0; label < has.size(); ++label) {
      if (!has[label]) names.push_back(data_.classes[label].name);
    }
    return names;
  }

  std::string lacks(const std::string& split, const std::vector<std::string>& classes) const {
    return own_data(data_.path) + split + " has no pictures of " + join_quoted(classes) +
           ", since groups stay together and other classes have placed all of theirs (hint: another "
           "--split_seed "
           "or smaller groups)";
  }

  /// In order of first appearance; a picture without a group is one.
  std::vector<Group> groups_in(const ClassFolder& folder) const {
    std::vector<Group> groups;
    std::map<std::string, std::size_t> index;
    for (const auto& image : folder.images) {
      const auto grouped = data_.group_of.find(image);
      // The letter keeps a group's name apart from a picture's path.
      const std::string key = grouped == data_.group_of.end() ? "i" + image : "g" + grouped->second;
      const auto [found, is_new] = index.try_emplace(key, groups.size());
      if (is_new) groups.push_back({key, {}});
      groups[found->second].images.push_back(image);
    }
    return groups;
  }

  /// Largest first, equal ones in a random order: what is small fills the gaps.
  std::vector<Group> shuffled(const std::vector<Group>& groups) {
    std::vector<Group> result;
    for (const std::size_t index : random_.shuffle(groups.size())) result.push_back(groups[index]);
    std::stable_sort(result.begin(), result.end(),
                     [](const Group& a, const Group& b) { return a.images.size() > b.images.size(); });
    return result;
  }

  void place_groups_of(const ClassFolder& folder) {
    const std::vector<Group> groups = groups_in(folder);
    require_enough(data_.path, folder.name, groups.size(), groups.size() == 1 ? "group" : "groups");
    const Counts counts = counts_of(folder.images.size(), options_);
    std::array<std::ptrdiff_t, kPlaces> missing = {static_cast<std::ptrdiff_t>(counts.train),
                                                   static_cast<std::ptrdiff_t>(counts.val),
                                                   static_cast<std::ptrdiff_t>(counts.test)};
    std::array<bool, kPlaces> empty = {true, false, true};  // val may stay so
    std::vector<Group> left;
    const auto put = [&](const Group& group, Place place) {
      place_[group.key] = place;
      missing[place] -= static_cast<std::ptrdiff_t>(group.images.size());
      empty[place] = false;
    };
    for (Group& group : shuffled(groups)) {
      const auto placed = place_.find(group.key);  // by a class before this one
      if (placed != place_.end()) {
        put(group, placed->second);
      } else {
        left.push_back(std::move(group));
      }
    }
    for (std::size_t i = 0; i < left.size(); ++i) put(left[i], best_place(missing, empty, left.size() - i));
  }

  static Place best_place(const std::array<std::ptrdiff_t, kPlaces>& missing,
                          const std::array<bool, kPlaces>& empty, std::size_t groups_left) {
    const auto needed = static_cast<std::size_t>(std::count(empty.begin(), empty.end(), true));
    const bool must_fill = groups_left <= needed;
    Place best = kPlaces;
    for (const Place place : {kTrain, kTest, kVal}) {
      if (must_fill && !empty[place]) continue;
      if (best == kPlaces || missing[place] > missing[best]) best = place;
    }
    return best;
  }

  const UnsplitData& data_;
  const SplitOptions& options_;
  PythonRandom random_;
  std::map<std::string, Place> place_;  // by group
};

std::string shown(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

/// split_class_folders; `path` is for messages.
Dataset split_pictures(const std::string& name, const fs::path& path, const std::vector<ClassFolder>& classes,
                       const SplitOptions& options) {
  PythonRandom random(options.seed);
  Dataset dataset = named_like(name, classes);
  for (std::size_t label = 0; label < classes.size(); ++label) {
    const auto& images = classes[label].images;
    require_enough(path, classes[label].name, images.size(), images.size() == 1 ? "picture" : "pictures");
    const Counts counts = counts_of(images.size(), options);
    const auto order = random.shuffle(images.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      auto& items = i < counts.train                ? dataset.train
                    : i < counts.train + counts.val ? dataset.val
                                                    : dataset.test;
      items.push_back({images[order[i]], static_cast<int>(label)});
    }
  }
  return dataset;
}

}  // namespace

void SplitOptions::validate() const {
  if (!(test_fraction > 0.0 && test_fraction < 1.0)) {
    throw ConfigError("--test_fraction " + shown(test_fraction) + ": expected above 0 and below 1");
  }
  if (!(val_fraction >= 0.0 && val_fraction < 1.0)) {
    throw ConfigError("--val_fraction " + shown(val_fraction) + ": expected at least 0 and below 1");
  }
  if (train_fraction(*this) <= 0.0) {
    throw ConfigError("--test_fraction " + shown(test_fraction) + " and --val_fraction " +
                      shown(val_fraction) + ": expected a sum below 1, since the rest is for training");
  }
}

Dataset split_class_folders(const std::string& name, const std::vector<ClassFolder>& classes,
                            const SplitOptions& options) {
  return split_pictures(name, name, classes, options);
}

Dataset split_classes(const UnsplitData& data, const SplitOptions& options) {
  return data.group_of.empty() ? split_pictures(data.name, data.path, data.classes, options)
                               : GroupSplitter(data, options).split();
}

}  // namespace clip_lora::data
