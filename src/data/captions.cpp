#include "clip_lora/data/captions.hpp"

#include <algorithm>
#include <unordered_set>

#include "caption_files.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "paths.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kUsualCaptions = 5;

/// Where the split file of a benchmark may lie below its folder.
const std::vector<std::string> kSplitFolders = {"", "annotations", "karpathy", "caption_datasets"};

/// Where pictures may lie, beside a split file or one folder up. COCO's are in train2014 and val2014 there.
const std::vector<std::string> kImageFolders = {
    "images", "", "flickr30k-images", "flickr30k_images", "Images", "Flicker8k_Dataset", "Flickr8k_Dataset"};

std::vector<std::string> names() {
  std::vector<std::string> names;
  for (const CaptionBenchmark& benchmark : caption_benchmarks()) names.push_back(benchmark.name);
  return names;
}

fs::path find_split_file(const CaptionBenchmark& benchmark, const fs::path& root_path) {
  std::vector<std::string> tried;
  bool has_folder = false;
  for (const std::string& folder : benchmark.folders) {
    if (!is_folder(root_path / folder)) {
      tried.push_back((root_path / folder).string());
      continue;
    }
    has_folder = true;
    for (const std::string& below : kSplitFolders) {
      fs::path file = root_path / folder / below / benchmark.split_file;
      if (is_there(file)) return file;
      tried.push_back(file.string());
    }
  }
  const std::string problem =
      "data set '" + benchmark.name + "': no " + (has_folder ? benchmark.split_file : std::string("folder")) +
      "; tried " + join_quoted(tried, tried.size()) + " (hint: DATASETS.md says where it comes from)";
  if (has_folder) throw DataError(problem);
  throw MissingData(problem);
}

/// Whether any picture lies below `folder`. A few may be missing, so more than one is looked for.
bool holds_any(const fs::path& folder, const std::vector<ListedImage>& images) {
  constexpr std::ptrdiff_t kLookedFor = 1000;
  if (!is_folder(folder)) return false;
  const auto end = images.begin() + std::min<std::ptrdiff_t>(kLookedFor, std::ssize(images));
  return std::any_of(images.begin(), end, [&](const auto& image) {
    std::error_code ignored;
    return fs::exists(folder / image.file, ignored);
  });
}

/// The folder that Karpathy's file means.
fs::path find_images(const fs::path& file, const std::vector<ListedImage>& images) {
  const fs::path beside = file.parent_path();
  const fs::path above = fs::absolute(file).lexically_normal().parent_path().parent_path();
  std::vector<std::string> tried;
  for (const fs::path& base : {beside, above}) {
    for (const std::string& name : kImageFolders) {
      fs::path folder = name.empty() ? base : base / name;
      if (holds_any(folder.empty() ? "." : folder, images)) return folder;
      tried.push_back(folder.empty() ? "." : folder.string());
    }
  }
  throw MissingData("caption file '" + file.string() + "': none of its pictures is there, such as '" +
                    images.front().file + "'; tried " + join_quoted(tried, tried.size()) +
                    " (hint: DATASETS.md shows the tree)");
}

/// As own pictures are split, all of them being one class.
void split_images(std::vector<ListedImage>& images, const std::string& name, const SplitOptions& options) {
  options.validate();
  ClassFolder all = {"images", {}};
  for (std::size_t i = 0; i < images.size(); ++i) all.images.push_back(std::to_string(i));
  const Dataset split = split_class_folders(name, {all}, options);
  const auto assign = [&](const std::vector<Item>& items, const char* of) {
    for (const Item& item : items) images[std::stoul(item.image)].split = of;
  };
  assign(split.train, "train");
  assign(split.val, "val");
  assign(split.test, "test");
}

/// What may be a folder's name, since results are kept in one.
bool is_plain_name(const std::string& name) {
  const auto is_plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
  };
  return !name.empty() && std::all_of(name.begin(), name.end(), is_plain);
}

void warn_of_counts(const std::vector<ListedImage>& images, std::vector<std::string>& warnings) {
  const auto count = std::count_if(images.begin(), images.end(),
                                   [](const auto& image) { return image.captions.size() != kUsualCaptions; });
  if (count == 0) return;
  const auto by_captions = [](const auto& a, const auto& b) { return a.captions.size() < b.captions.size(); };
  const auto [least, most] = std::minmax_element(images.begin(), images.end(), by_captions);
  warnings.push_back(std::to_string(count) + " of " + std::to_string(images.size()) +
                     " images have other than five captions: " + std::to_string(least->captions.size()) +
                     " to " + std::to_string(most->captions.size()));
}

CaptionDataset load_file(const fs::path& file, const SplitOptions& split) {
  const bool is_json = lower_case(file.extension().string()) == ".json";
  CaptionFile found = is_json ? read_karpathy_json(file) : read_caption_csv(file);
  const fs::path folder = is_json ? find_images(file, found.images) : file.parent_path();
  CaptionDataset dataset;
  dataset.name = is_plain_name(found.name) ? found.name : own_dataset_name(file);
  dataset.warnings = std::move(found.warnings);
  warn_of_counts(found.images, dataset.warnings);
  if (found.images.front().split.empty()) split_images(found.images, file.string(), split);
  for (ListedImage& image : found.images) {
    auto& images = image.split == "train" ? dataset.train : image.split == "val" ? dataset.val : dataset.test;
    images.push_back({(folder / image.file).string(), std::move(image.captions)});
  }
  if (dataset.test.empty()) {
    throw DataError("caption file '" + file.string() + "': none of its images has the split 'test'");
  }
  return dataset;
}

}  // namespace

const std::vector<CaptionBenchmark>& caption_benchmarks() {
  static const std::vector<CaptionBenchmark> all = {{"coco",
                                                     {"coco", "COCO", "mscoco", "MSCOCO"},
                                                     "dataset_coco.json",
                                                     "train2014/, val2014/ and dataset_coco.json"},
                                                    {"flickr30k",
                                                     {"flickr30k", "Flickr30k", "Flickr30K"},
                                                     "dataset_flickr30k.json",
                                                     "flickr30k-images/ and dataset_flickr30k.json"},
                                                    {"flickr8k",
                                                     {"flickr8k", "Flickr8k", "Flickr8K"},
                                                     "dataset_flickr8k.json",
                                                     "Flicker8k_Dataset/ and dataset_flickr8k.json"}};
  return all;
}

const CaptionBenchmark* find_caption_benchmark(const std::string& name) {
  const auto& all = caption_benchmarks();
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& known) { return known.name == name; });
  return found == all.end() ? nullptr : &*found;
}

CaptionDataset load_captions(const std::string& path_or_name, const fs::path& root_path,
                             const SplitOptions& split) {
  if (const CaptionBenchmark* benchmark = find_caption_benchmark(path_or_name)) {
    CaptionDataset dataset = load_file(find_split_file(*benchmark, root_path), split);
    dataset.name = benchmark->name;
    return dataset;
  }
  const std::string extension = lower_case(fs::path(path_or_name).extension().string());
  if (extension != ".json" && extension != ".csv") {
    throw ConfigError("unknown captions '" + path_or_name + "', expected one of " + join_capped(names()) +
                      ", a .json in the format of Karpathy's splits or a .csv of image, caption[, split]" +
                      did_you_mean(path_or_name, names()));
  }
  return load_file(path_or_name, split);
}

std::vector<Item> image_items(const std::vector<CaptionedImage>& images) {
  std::vector<Item> items;
  items.reserve(images.size());
  for (const CaptionedImage& image : images) items.push_back({image.image, static_cast<int>(items.size())});
  return items;
}

CaptionPairs caption_pairs(const std::vector<CaptionedImage>& images) {
  CaptionPairs pairs;
  for (std::size_t i = 0; i < images.size(); ++i) {
    for (const std::string& caption : images[i].captions) {
      pairs.items.push_back({images[i].image, static_cast<int>(i)});
      pairs.captions.push_back(caption);
    }
  }
  return pairs;
}

void require_images(const std::vector<CaptionedImage>& images, const std::string& what) {
  require_images(image_items(images), what);
}

std::size_t leave_out_missing(std::vector<CaptionedImage>& images, const std::string& what) {
  std::unordered_set<std::string> missing;
  for (Item& item : missing_images(image_items(images))) missing.insert(std::move(item.image));
  if (!images.empty() && missing.size() == images.size()) {
    throw MissingData(what + ": all of its images are missing, the first is '" + images.front().image + "'");
  }
  return std::erase_if(images, [&](const auto& image) { return missing.contains(image.image); });
}

}  // namespace clip_lora::data
