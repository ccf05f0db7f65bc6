#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "clip_lora/data/robustness.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "support/files.hpp"
#include "support/miniature_benchmarks.hpp"
#include "support/miniature_shifts.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using clip_lora::testing::FolderNames;
using clip_lora::testing::message_of;
using clip_lora::testing::miniature_wordnet_id;
using clip_lora::testing::read_bytes;
using clip_lora::testing::write_bytes;
using clip_lora::testing::write_miniature;
using clip_lora::testing::write_shift_miniature;
using clip_lora::testing::write_wordnet_ids;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class Robustness : public ::testing::Test {
 protected:
  ShiftedImages load(const std::string& name) const { return load_shifted_images(name, root_.path()); }

  std::string complaint(const std::string& name) const {
    return message_of<DataError>([&] { load(name); });
  }

  fs::path mapping(const std::string& name) const { return root_ / "objectnet-1.0/mappings" / name; }

  void change_mapping(const std::string& name, const std::function<void(json&)>& change) const {
    json mapping_json = json::parse(read_bytes(mapping(name)));
    change(mapping_json);
    write_bytes(mapping(name), mapping_json.dump());
  }

  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(Robustness, OfV2NumbersAreLabels) {
  write_shift_miniature(root_.path(), "imagenet_v2");
  const ShiftedImages v2 = load("imagenet_v2");
  EXPECT_EQ(v2.name, "imagenet_v2");
  ASSERT_EQ(v2.items.size(), 1000U);
  for (const Item& item : v2.items) {
    EXPECT_EQ(fs::path(item.image).parent_path().filename(), std::to_string(item.label));
    EXPECT_EQ(v2.class_of(item.label), item.label);
  }
  EXPECT_THAT(v2.counted_labels, IsEmpty());
  EXPECT_EQ(v2.border_px, 0);
  EXPECT_EQ(load("imagenetv2").items.size(), 1000U);
}

TEST_F(Robustness, OfV2AllThousandFoldersMustBeThere) {
  write_shift_miniature(root_.path(), "imagenet_v2");
  const fs::path folder = root_ / "imagenetv2-matched-frequency-format-val";
  fs::rename(folder / "17", folder / "0017");
  EXPECT_THAT(complaint("imagenet_v2"), HasSubstr("0017' is no class folder, expected 0 to 999"));
  fs::remove_all(folder / "0017");
  EXPECT_THAT(complaint("imagenet_v2"), HasSubstr("has 999 class folders, expected 1000"));
  fs::create_directories(folder / "17");
  EXPECT_THAT(complaint("imagenet_v2"), HasSubstr("class folders without pictures: '17'"));
}

TEST_F(Robustness, OfSketchTheFoldersTellTheLabels) {
  write_shift_miniature(root_.path(), "imagenet_sketch");
  const ShiftedImages sketch = load("imagenet_sketch");
  ASSERT_EQ(sketch.items.size(), 1000U);
  EXPECT_THAT(sketch.counted_labels, IsEmpty());
  for (const Item& item : sketch.items) {
    EXPECT_EQ(fs::path(item.image).parent_path().filename(), miniature_wordnet_id(item.label));
  }
}

TEST_F(Robustness, OfAAndRTwoHundredLabelsCount) {
  write_wordnet_ids(root_.path());
  for (const auto& [name, first] : {std::pair{"imagenet_a", 0}, {"imagenet_r", 1}}) {
    write_shift_miniature(root_.path(), name);
    const ShiftedImages shifted = load(name);
    ASSERT_EQ(shifted.counted_labels.size(), 200U);
    ASSERT_EQ(shifted.items.size(), 200U);
    for (std::size_t i = 0; i < 200; ++i) {
      EXPECT_EQ(shifted.counted_labels[i], first + 5 * static_cast<int>(i));
      EXPECT_EQ(shifted.items[i].label, shifted.counted_labels[i]);
    }
  }
}

TEST_F(Robustness, FoldersThatImageNetLacksAreRefused) {
  write_wordnet_ids(root_.path());
  write_shift_miniature(root_.path(), "imagenet_a");
  fs::rename(root_ / "imagenet-a" / miniature_wordnet_id(5), root_ / "imagenet-a/n99999999");
  EXPECT_THAT(complaint("imagenet_a"), HasSubstr("none of ImageNet's: 'n99999999'"));
  fs::remove_all(root_ / "imagenet-a/n99999999");
  EXPECT_THAT(complaint("imagenet_a"), HasSubstr("has 199 class folders, expected 200"));
}

TEST_F(Robustness, FoldersHaveCoopsNamesToo) {
  write_wordnet_ids(root_.path());
  write_shift_miniature(root_.path(), "imagenet_r");
  fs::create_directory(root_ / "imagenet-rendition");
  fs::rename(root_ / "imagenet-r", root_ / "imagenet-rendition/imagenet-r");
  EXPECT_EQ(load("imagenet_r").items.size(), 200U);
}

TEST_F(Robustness, WhatIsNotThereIsSaid) {
  EXPECT_THAT(message_of<MissingData>([&] { load("imagenet_a"); }),
              AllOf(HasSubstr((root_ / "imagenet-adversarial/imagenet-a").string()),
                    HasSubstr((root_ / "imagenet-a").string())));
  EXPECT_THAT(message_of<ConfigError>([&] { load("imagenet_b"); }), HasSubstr("did you mean 'imagenet_"));
}

TEST_F(Robustness, WordNetIdsAreFoundWhereverTheyAre) {
  std::vector<std::string> expected;
  for (int label = 0; label < 1000; ++label) expected.push_back(miniature_wordnet_id(label));
  const auto remove_all = [&] {
    for (const auto& entry : fs::directory_iterator(root_.path())) fs::remove_all(entry.path());
  };
  write_wordnet_ids(root_.path());
  EXPECT_EQ(find_wordnet_ids(root_.path()), expected);
  remove_all();
  for (const std::string folder :
       {"imagenet/images/val", "imagenet/train", "imagenet-sketch/sketch", "sketch"}) {
    for (const std::string& id : expected) fs::create_directories(root_ / folder / id);
    write_bytes(root_ / folder / "n10001000", "no folder");
    fs::create_directory(root_ / folder / "meta");
    EXPECT_EQ(find_wordnet_ids(root_.path()), expected) << folder;
    remove_all();
  }
  fs::create_directory(root_ / "imagenet");
  std::string lines;
  for (auto id = expected.rbegin(); id != expected.rend(); ++id) lines += *id + " great white shark, shark\n";
  for (const std::string file : {"classnames.txt", "LOC_synset_mapping.txt"}) {
    write_bytes(root_ / "imagenet" / file, lines);
    EXPECT_EQ(find_wordnet_ids(root_.path()), expected);
    fs::remove(root_ / "imagenet" / file);
  }
}

TEST_F(Robustness, WithoutAThousandIdsThePlacesAreNamed) {
  write_shift_miniature(root_.path(), "imagenet_a");
  write_miniature(root_.path(), "imagenet", FolderNames::kCoop);
  EXPECT_THAT(complaint("imagenet_a"),
              AllOf(HasSubstr("'" + (root_ / "imagenet/classnames.txt").string() + "' (3 ids)"),
                    HasSubstr("'" + (root_ / "wordnet_ids.txt").string() + "' (not there)"),
                    HasSubstr((root_ / "imagenet/images/val").string() + "' (3 ids)"),
                    HasSubstr("imagenet-sketch/sketch' (not there)"), HasSubstr("n01440764 per line")));
}

TEST_F(Robustness, OfObjectNetImageNetsLabelsMeanItsClasses) {
  write_shift_miniature(root_.path(), "objectnet");
  const ShiftedImages objectnet = load("objectnet");
  ASSERT_EQ(objectnet.items.size(), 3U);
  for (int own = 0; own < 3; ++own) EXPECT_EQ(objectnet.items[static_cast<std::size_t>(own)].label, own);
  EXPECT_THAT(objectnet.items[0].image, HasSubstr("/alarm_clock/"));
  EXPECT_THAT(objectnet.items[2].image, HasSubstr("/zucchini/"));
  EXPECT_THAT(objectnet.counted_labels, ElementsAre(409, 423, 530, 987));
  EXPECT_EQ(objectnet.class_of(409), 0);
  EXPECT_EQ(objectnet.class_of(530), 0);
  EXPECT_EQ(objectnet.class_of(423), 1);
  EXPECT_EQ(objectnet.class_of(987), 2);
  EXPECT_EQ(std::count(objectnet.class_of_label.begin(), objectnet.class_of_label.end(), -1), 996);
}

TEST_F(Robustness, ObjectNetsFrameIsCutOff) {
  write_shift_miniature(root_.path(), "objectnet");
  const ShiftedImages objectnet = load("objectnet");
  const image::Preprocessing preprocessing = {.size_px = 4, .resize_px = 4, .border_px = objectnet.border_px};
  const image::Image view = image::load_evaluation_view(objectnet.items[0].image, preprocessing);
  for (std::size_t i = 0; i < view.rgb.size(); i += 3) {
    EXPECT_EQ(view.rgb[i], 0);
    EXPECT_EQ(view.rgb[i + 1], 255);
  }
}

TEST_F(Robustness, OfObjectNetEveryMappingAndFolderIsNeeded) {
  write_shift_miniature(root_.path(), "objectnet");
  for (const std::string name : {"folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json",
                                 "pytorch_to_imagenet_2012_id.json", "imagenet_to_label_2012_v2"}) {
    fs::rename(mapping(name), root_ / "kept");
    EXPECT_THAT(complaint("objectnet"), AllOf(HasSubstr("has no '" + name + "'"), HasSubstr("DATASETS.md")));
    fs::rename(root_ / "kept", mapping(name));
  }
  fs::remove_all(root_ / "objectnet-1.0/images/chair");
  EXPECT_THAT(complaint("objectnet"), HasSubstr("1 of 3 class folders are missing or empty: 'chair'"));
  fs::remove_all(root_ / "objectnet-1.0/images");
  EXPECT_THAT(complaint("objectnet"), HasSubstr("no folder"));
  fs::remove_all(root_ / "objectnet-1.0/mappings");
  EXPECT_THAT(complaint("objectnet"), HasSubstr("'imagenet_to_label_2012_v2'"));
}

TEST_F(Robustness, BrokenMappingsOfObjectNetAreRefused) {
  write_shift_miniature(root_.path(), "objectnet");
  const auto said_after = [&](const std::string& name, const std::function<void(json&)>& change) {
    const std::string whole = read_bytes(mapping(name));
    change_mapping(name, change);
    std::string message = complaint("objectnet");
    write_bytes(mapping(name), whole);
    EXPECT_THAT(message, HasSubstr(name));
    return message;
  };
  const std::string classes = "objectnet_to_imagenet_1k.json";
  EXPECT_THAT(said_after(classes, [](json& j) { j["Sofa"] = "thing, object 7"; }),
              HasSubstr("'Sofa' is no object of folder_to_objectnet_label.json"));
  EXPECT_THAT(said_after(classes, [](json& j) { j["Chair"] = "throne"; }),
              HasSubstr("'Chair' is ImageNet's 'throne', which is no line of imagenet_to_label_2012_v2"));
  EXPECT_THAT(said_after(classes, [](json& j) { j["Chair"] = 7; }),
              HasSubstr("'Chair' is 7, expected a string"));
  EXPECT_THAT(said_after(classes, [](json& j) { j = json::object(); }), HasSubstr("it is empty"));
  EXPECT_THAT(said_after(classes, [](json& j) { j = json::array(); }), HasSubstr("expected an object"));
  const std::string labels = "pytorch_to_imagenet_2012_id.json";
  EXPECT_THAT(said_after(labels, [](json& j) { j["1000"] = 3; }), HasSubstr("'1000' is 3, expected labels"));
  EXPECT_THAT(said_after(labels, [](json& j) { j["5"] = 1000; }), HasSubstr("'5' is 1000"));
  EXPECT_THAT(said_after(labels, [](json& j) { j["5"] = -1; }), HasSubstr("'5' is -1"));
  EXPECT_THAT(said_after("folder_to_objectnet_label.json", [](json& j) { j["chair"] = nullptr; }),
              HasSubstr("'chair' is null"));
  change_mapping(classes, [](json& j) { j["Chair"] = j["Alarm clock"]; });
  EXPECT_THAT(complaint("objectnet"), HasSubstr("to two classes, 'chair' is the second"));
  write_bytes(mapping(classes), read_bytes(mapping(classes)).substr(0, 40));
  EXPECT_THAT(complaint("objectnet"), HasSubstr("it is not JSON"));
  write_bytes(mapping("imagenet_to_label_2012_v2"), "tench\n");
  EXPECT_THAT(complaint("objectnet"), HasSubstr("it has 1 lines, expected 1,000"));
}

}  // namespace
}  // namespace clip_lora::data
