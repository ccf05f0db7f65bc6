#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "support/test_data.hpp"

namespace clip_lora::data {
namespace {

/// The folder, under data/coop, of each data set's split file; the others lie together in `splits`.
const std::map<std::string, std::string> kFolders = {{"EuroSAT", "eurosat"}, {"Caltech101", "caltech-101"}};

std::vector<std::string> paths_of(const std::vector<Item>& items) {
  std::vector<std::string> paths;
  for (const Item& item : items) paths.push_back(item.image.string());
  return paths;
}

TEST(FewShotGolden, EverySeedAndShotCountPicksTheReferencesFiles) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto coop = clip_lora::testing::test_data() / "data" / "coop";
  std::ifstream file(coop / "few_shot_golden.json");
  const auto golden = nlohmann::json::parse(file);
  EXPECT_EQ(golden.size(), 7U);
  for (const auto& [name, samples] : golden.items()) {
    const auto folder = kFolders.contains(name) ? kFolders.at(name) : "splits";
    const Dataset dataset = read_coop_split(name, coop / folder / ("split_zhou_" + name + ".json"), "");
    EXPECT_EQ(samples.size(), 15U) << name;
    for (const auto& [key, expected] : samples.items()) {
      int shots = 0;
      int seed = 0;
      ASSERT_EQ(std::sscanf(key.c_str(), "shots%d_seed%d", &shots, &seed), 2) << key;
      const FewShot drawn = sample_few_shot(dataset, shots, seed);
      EXPECT_EQ(paths_of(drawn.train), expected.at("train").get<std::vector<std::string>>())
          << name << " " << key;
      EXPECT_EQ(paths_of(drawn.val), expected.at("val").get<std::vector<std::string>>())
          << name << " " << key;
    }
  }
}

}  // namespace
}  // namespace clip_lora::data
