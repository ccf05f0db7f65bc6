#include "support/miniature_shifts.hpp"

#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/miniature_benchmarks.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A picture in each class folder, of which a few are drawn and the others linked.
void write_class_folders(const fs::path& folder, const std::vector<std::string>& names) {
  constexpr std::size_t kDrawn = 3;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const fs::path picture = folder / names[i] / ("picture_" + std::to_string(i) + ".JPEG");
    fs::create_directories(picture.parent_path());
    if (i < kDrawn) {
      write_miniature_picture(picture, static_cast<int>(i), 0);
    } else {
      const std::size_t same = i % kDrawn;
      fs::create_hard_link(folder / names[same] / ("picture_" + std::to_string(same) + ".JPEG"), picture);
    }
  }
}

std::vector<std::string> wordnet_ids(int first, int step) {
  std::vector<std::string> ids;
  for (int label = first; label < kImageNetClasses; label += step) ids.push_back(miniature_wordnet_id(label));
  return ids;
}

std::vector<std::string> numbers() {
  std::vector<std::string> names;
  for (int label = 0; label < kImageNetClasses; ++label) names.push_back(std::to_string(label));
  return names;
}

/// Green, in a red frame of two pixels.
image::Image framed_picture() {
  constexpr int kSide = 12;
  image::Image picture{kSide, kSide, {}};
  for (int y = 0; y < kSide; ++y) {
    for (int x = 0; x < kSide; ++x) {
      const bool is_frame = x < 2 || y < 2 || x >= kSide - 2 || y >= kSide - 2;
      for (const int value : {is_frame ? 255 : 0, is_frame ? 0 : 255, 0}) {
        picture.rgb.push_back(static_cast<std::uint8_t>(value));
      }
    }
  }
  return picture;
}

void write_objectnet(const fs::path& folder) {
  const auto line_of = [](int label) { return (7 * label + 3) % kImageNetClasses; };  // any other order
  const auto name_of = [&](int label) { return "thing, object " + std::to_string(line_of(label)); };
  fs::create_directories(folder / "mappings");
  std::string names;
  json lines;
  for (int i = 0; i < kImageNetClasses; ++i) {
    names += "thing, object " + std::to_string(i) + "\n";
    lines[std::to_string(i)] = line_of(i);
  }
  write_bytes(folder / "mappings/imagenet_to_label_2012_v2", names);
  write_bytes(folder / "mappings/pytorch_to_imagenet_2012_id.json", lines.dump(2));
  const json folders = {{"air_freshener", "Air freshener"},
                        {"alarm_clock", "Alarm clock"},
                        {"chair", "Chair"},
                        {"zucchini", "Zucchini (fresh)"}};
  const json classes = {{"Zucchini (fresh)", name_of(987)},
                        {"Alarm clock", name_of(530) + "; " + name_of(409)},
                        {"Chair", name_of(423)}};
  write_bytes(folder / "mappings/folder_to_objectnet_label.json", folders.dump(2));
  write_bytes(folder / "mappings/objectnet_to_imagenet_1k.json", classes.dump(2));
  for (const auto& [name, label] : folders.items()) {
    fs::create_directories(folder / "images" / name);
    image::write_png(folder / "images" / name / "0123abc.png", framed_picture());
  }
}

}  // namespace

void write_shift_miniature(const fs::path& root, const std::string& name) {
  if (name == "objectnet") return write_objectnet(root / "objectnet-1.0");
  const std::map<std::string, std::pair<std::string, std::vector<std::string>>> others = {
      {"imagenet_v2", {"imagenetv2-matched-frequency-format-val", numbers()}},
      {"imagenet_sketch", {"imagenet-sketch/sketch", wordnet_ids(0, 1)}},
      {"imagenet_a", {"imagenet-a", wordnet_ids(0, 5)}},
      {"imagenet_r", {"imagenet-r", wordnet_ids(1, 5)}}};
  const auto& [folder, classes] = others.at(name);
  write_class_folders(root / folder, classes);
}

void write_wordnet_ids(const fs::path& root) {
  std::string lines;
  for (const std::string& id : wordnet_ids(0, 1)) lines += id + "\n";
  write_bytes(root / "wordnet_ids.txt", lines);
}

void write_caption_miniature(const fs::path& root, const std::string& name) {
  const bool is_coco = name == "coco";
  const fs::path folder = root / name;
  const std::vector<std::string> splits = {
      "train", "test", "val", is_coco ? "restval" : "train", "test", "train", "val", "test", "train"};
  json images = json::array();
  for (std::size_t i = 0; i < splits.size(); ++i) {
    const int label = static_cast<int>(i);
    const std::string shape = data::shape_class_names().at(i);
    json image = {{"filename", std::to_string(100 + i) + ".jpg"}, {"split", splits[i]}, {"imgid", i}};
    if (is_coco) image["filepath"] = splits[i] == "train" ? "train2014" : "val2014";
    for (const std::string text : {"A ", "There is a ", "One ", "This shows a ", "Somebody drew a "}) {
      image["sentences"].push_back({{"raw", text + shape + " ."}, {"tokens", {"a", shape}}});
    }
    const std::string below = is_coco ? image["filepath"].get<std::string>() : "images";
    fs::create_directories(folder / below);
    write_miniature_picture(folder / below / image["filename"].get<std::string>(), label, 0);
    images.push_back(std::move(image));
  }
  write_bytes(folder / ("dataset_" + name + ".json"), json({{"images", images}, {"dataset", name}}).dump());
}

}  // namespace clip_lora::testing
