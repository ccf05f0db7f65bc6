#include "support/miniature_benchmarks.hpp"

#include <map>
#include <nlohmann/json.hpp>
#include <random>

#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr int kTrain = 2;
constexpr int kVal = 1;
constexpr int kTest = 2;
constexpr int kClasses = 3;
constexpr int kSide = 32;  // pixels

/// A class of a CoOp split: its pictures are called as the real ones are, up to their number.
struct MiniatureClass {
  std::string name;
  std::string picture;
};

struct CoopMiniature {
  std::string coop_folder;
  std::string release_folder;
  std::string image_folder;
  std::string split_file;
  std::vector<MiniatureClass> classes;
};

const std::map<std::string, CoopMiniature>& coop_miniatures() {
  static const std::map<std::string, CoopMiniature> all = {
      {"caltech101",
       {"caltech-101",
        "Caltech101",
        "101_ObjectCategories",
        "split_zhou_Caltech101.json",
        {{"face", "Faces/image_"}, {"leopard", "Leopards/image_"}, {"car_side", "car_side/image_"}}}},
      {"dtd",
       {"dtd",
        "DTD",
        "images",
        "split_zhou_DescribableTextures.json",
        {{"banded", "banded/banded_"},
         {"polka-dotted", "polka-dotted/polka-dotted_"},
         {"zigzagged", "zigzagged/z_"}}}},
      {"eurosat",
       {"eurosat",
        "eurosat",
        "2750",
        "split_zhou_EuroSAT.json",
        {{"Annual Crop Land", "AnnualCrop/AnnualCrop_"},
         {"Forest", "Forest/Forest_"},
         {"River", "River/River_"}}}},
      {"food101",
       {"food-101",
        "Food101",
        "images",
        "split_zhou_Food101.json",
        {{"apple_pie", "apple_pie/1"}, {"baby_back_ribs", "baby_back_ribs/2"}, {"waffles", "waffles/3"}}}},
      {"oxford_flowers",
       {"oxford_flowers",
        "Flower102",
        "jpg",
        "split_zhou_OxfordFlowers.json",
        {{"fire lily", "image_1"}, {"bird of paradise", "image_2"}, {"globe-flower", "image_3"}}}},
      {"oxford_pets",
       {"oxford_pets",
        "OxfordPets",
        "images",
        "split_zhou_OxfordPets.json",
        {{"abyssinian", "Abyssinian_"}, {"american_bulldog", "american_bulldog_"}, {"pug", "pug_"}}}},
      {"stanford_cars",
       {"stanford_cars",
        "StanfordCars",
        "",
        "split_zhou_StanfordCars.json",
        {{"2012 Audi TTS Coupe", "cars_train/0"},
         {"2012 smart fortwo", "cars_train/1"},
         {"1998 Eagle Talon", "cars_test/2"}}}},
      {"sun397",
       {"sun397",
        "SUN397",
        "SUN397",
        "split_zhou_SUN397.json",
        {{"abbey", "a/abbey/sun_a"},
         {"indoor_apse", "a/apse/indoor/sun_a"},
         {"zen_garden", "z/zen_garden/sun_z"}}}},
      {"ucf101",
       {"ucf101",
        "UCF101",
        "UCF-101-midframes",
        "split_zhou_UCF101.json",
        {{"Apply_Eye_Makeup", "Apply_Eye_Makeup/v_ApplyEyeMakeup_g"},
         {"Billiards", "Billiards/v_Billiards_g"},
         {"Yo_Yo", "Yo_Yo/v_YoYo_g"}}}},
  };
  return all;
}

void write_coop_miniature(const fs::path& folder, const CoopMiniature& miniature) {
  const std::map<std::string, std::pair<int, int>> numbers = {
      {"train", {0, kTrain}},
      {"val", {kTrain, kTrain + kVal}},
      {"test", {kTrain + kVal, kTrain + kVal + kTest}}};
  ordered_json split;
  for (const std::string name : {"train", "val", "test"}) {
    split[name] = ordered_json::array();
    const auto [begin, end] = numbers.at(name);
    for (int label = 0; label < kClasses; ++label) {
      const MiniatureClass& one_class = miniature.classes.at(static_cast<std::size_t>(label));
      for (int number = begin; number < end; ++number) {
        const std::string path = one_class.picture + "000" + std::to_string(number) + ".jpg";
        write_miniature_picture(folder / miniature.image_folder / path, label, number);
        split[name].push_back({path, label, one_class.name});
      }
    }
  }
  write_bytes(folder / miniature.split_file, split.dump(4));
}

void write_fgvc(const fs::path& folder) {
  const std::vector<std::string> variants = {"707-320", "Boeing 717", "MD-80 (late)"};
  std::map<std::string, std::string> lists;
  std::string variant_lines;
  for (int label = 0; label < kClasses; ++label) {
    const std::string& variant = variants.at(static_cast<std::size_t>(label));
    variant_lines += variant + "\n";
    for (int number = 0; number < kTrain + kVal + kTest; ++number) {
      const std::string id = std::to_string(1000000 + 100 * label + number);
      write_miniature_picture(folder / "images" / (id + ".jpg"), label, number);
      lists[number < kTrain ? "train" : number < kTrain + kVal ? "val" : "test"] += id + " " + variant + "\n";
    }
  }
  write_bytes(folder / "variants.txt", variant_lines);
  for (const auto& [split, lines] : lists) write_bytes(folder / ("images_variant_" + split + ".txt"), lines);
}

/// Few-shot sampling takes its validation pictures from `train`, which has as many more.
void write_imagenet_class(const fs::path& folder, const std::string& synset, int label,
                          const fs::path& drawn) {
  const auto link = [&](const fs::path& path, int number) {
    fs::create_directories(path.parent_path());
    const fs::path source =
        drawn / (std::to_string(label % kClasses) + "_" + std::to_string(number) + ".JPEG");
    fs::create_hard_link(source, path);
  };
  for (int number = 0; number < kTrain + kVal; ++number) {
    link(folder / "train" / synset / (synset + "_" + std::to_string(number) + ".JPEG"), number);
  }
  for (int number = 0; number < kTest; ++number) {
    const std::string id = std::to_string(10000000 + kTest * label + number);
    link(folder / "val" / synset / ("ILSVRC2012_val_" + id + ".JPEG"), kTrain + kVal + number);
  }
}

void write_imagenet(const fs::path& root, FolderNames folder_names) {
  const fs::path folder = root / "imagenet";
  const fs::path drawn = root / "drawn";
  for (int label = 0; label < kClasses; ++label) {
    for (int number = 0; number < kTrain + kVal + kTest; ++number) {
      write_miniature_picture(drawn / (std::to_string(label) + "_" + std::to_string(number) + ".JPEG"), label,
                              number);
    }
  }
  const bool by_coop = folder_names == FolderNames::kCoop;
  std::string names;
  for (int label = 0; label < miniature_classes("imagenet", folder_names); ++label) {
    const std::string synset = miniature_wordnet_id(label);
    write_imagenet_class(by_coop ? folder / "images" : folder, synset, label, drawn);
    names += synset + " " + data::shape_class_names().at(static_cast<std::size_t>(label % kClasses)) + "\n";
  }
  if (by_coop) write_bytes(folder / "classnames.txt", names);
  write_bytes(folder / "ILSVRC2012_devkit_t12.tar.gz", "left over");
}

}  // namespace

std::string miniature_wordnet_id(int label) { return "n" + std::to_string(10000000 + label); }

void write_miniature_picture(const fs::path& path, int label, int number) {
  std::mt19937_64 generator(static_cast<std::uint64_t>(1000 * label + number));
  const int shape = label % static_cast<int>(data::shape_class_names().size());
  const auto scene = data::random_shape_scene(shape, generator);
  image::write_png(path, data::draw_shape(scene, data::ShapeLook::kThermal, kSide, generator));
}

std::vector<std::string> miniature_names() {
  std::vector<std::string> names = {"fgvc", "imagenet"};
  for (const auto& [name, miniature] : coop_miniatures()) names.push_back(name);
  return names;
}

void write_miniature(const fs::path& root, const std::string& name, FolderNames folder_names) {
  if (name == "fgvc") return write_fgvc(root / "fgvc_aircraft");
  if (name == "imagenet") return write_imagenet(root, folder_names);
  const CoopMiniature& miniature = coop_miniatures().at(name);
  const bool by_coop = folder_names == FolderNames::kCoop;
  write_coop_miniature(root / (by_coop ? miniature.coop_folder : miniature.release_folder), miniature);
}

int miniature_classes(const std::string& name, FolderNames folder_names) {
  return name == "imagenet" && folder_names == FolderNames::kRelease ? kImageNetClasses : kClasses;
}

}  // namespace clip_lora::testing
