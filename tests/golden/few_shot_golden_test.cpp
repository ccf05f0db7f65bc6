#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "support/temporary_folder.hpp"
#include "support/test_data.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

/// How the reference's numbers call a data set, and where its split file is among them.
struct Source {
  std::string dataset;
  std::string folder;  ///< with the split file, below data/coop
};
const std::map<std::string, Source> kSources = {{"Caltech101", {"caltech101", "caltech-101"}},
                                                {"DescribableTextures", {"dtd", "splits"}},
                                                {"EuroSAT", {"eurosat", "eurosat"}},
                                                {"OxfordFlowers", {"oxford_flowers", "splits"}},
                                                {"OxfordPets", {"oxford_pets", "splits"}},
                                                {"StanfordCars", {"stanford_cars", "splits"}},
                                                {"UCF101", {"ucf101", "splits"}}};

/// Where each reader looks for images, below its data set's folder.
const std::map<std::string, std::string> kImageFolders = {{"caltech101", "101_ObjectCategories"},
                                                          {"dtd", "images"},
                                                          {"eurosat", "2750"},
                                                          {"oxford_flowers", "jpg"},
                                                          {"oxford_pets", "images"},
                                                          {"stanford_cars", ""},
                                                          {"ucf101", "UCF-101-midframes"}};

/// The data set as its reader gives it, from its split file and an empty folder of images.
Dataset read(const fs::path& root, const std::string& golden_name, const fs::path& coop) {
  const Source& source = kSources.at(golden_name);
  const fs::path folder = root / find_benchmark(source.dataset)->folders.front();
  fs::create_directories(folder / kImageFolders.at(source.dataset));
  const std::string split_file = "split_zhou_" + golden_name + ".json";
  fs::create_symlink(fs::absolute(coop / source.folder / split_file), folder / split_file);
  return load_benchmark(source.dataset, root);
}

/// Paths below the image folder, as in the split file.
std::vector<std::string> paths_of(const std::vector<Item>& items, const fs::path& image_folder) {
  std::vector<std::string> paths;
  for (const Item& item : items)
    paths.push_back(fs::path(item.image).lexically_relative(image_folder).string());
  return paths;
}

TEST(FewShotGolden, EverySeedAndShotCountPicksTheReferencesFiles) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto coop = clip_lora::testing::test_data() / "data" / "coop";
  const clip_lora::testing::TemporaryFolder root;
  std::ifstream file(coop / "few_shot_golden.json");
  const auto golden = nlohmann::json::parse(file);
  EXPECT_EQ(golden.size(), kSources.size());
  for (const auto& [name, samples] : golden.items()) {
    const Dataset dataset = read(root.path(), name, coop);
    const fs::path images =
        root.path() / find_benchmark(dataset.name)->folders.front() / kImageFolders.at(dataset.name);
    EXPECT_EQ(samples.size(), 15U) << name;
    for (const auto& [key, expected] : samples.items()) {
      int shots = 0;
      int seed = 0;
      ASSERT_EQ(std::sscanf(key.c_str(), "shots%d_seed%d", &shots, &seed), 2) << key;
      const FewShot drawn = sample_few_shot(dataset, shots, seed);
      EXPECT_EQ(paths_of(drawn.train, images), expected.at("train").get<std::vector<std::string>>())
          << name << " " << key;
      EXPECT_EQ(paths_of(drawn.val, images), expected.at("val").get<std::vector<std::string>>())
          << name << " " << key;
    }
  }
}

}  // namespace
}  // namespace clip_lora::data
