#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/few_shot.hpp"

namespace clip_lora::data {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

/// Classes of `sizes[label]` items named "<label>/<number>", label after label from the last to the first.
std::vector<Item> items_of(const std::vector<int>& sizes) {
  std::vector<Item> items;
  for (int label = static_cast<int>(sizes.size()) - 1; label >= 0; --label) {
    for (int i = 0; i < sizes[static_cast<std::size_t>(label)]; ++i) {
      items.push_back({std::to_string(label) + "/" + std::to_string(i), label});
    }
  }
  return items;
}

/// Class `label` is called "class <label>".
Dataset dataset_of(const std::vector<int>& train, const std::vector<int>& val) {
  Dataset dataset;
  for (std::size_t label = 0; label < train.size(); ++label) {
    dataset.class_names.push_back("class " + std::to_string(label));
  }
  dataset.train = items_of(train);
  dataset.val = items_of(val);
  return dataset;
}

std::vector<std::string> names(const std::vector<Item>& items) {
  std::vector<std::string> result;
  for (const Item& item : items) result.push_back(item.image);
  return result;
}

// The expected lists are what CPython 3.11's random.Random(1) draws: sample(5, 2), sample(30, 2), then
// choices(1, k=2), sample(40, 2).
TEST(FewShot, DrawsValThenTrainFromOneStreamByClassInOrderOfAppearance) {
  const FewShot drawn = sample_few_shot(dataset_of({40, 1}, {30, 5}), 2, 1);
  EXPECT_THAT(names(drawn.val), ElementsAre("1/1", "1/0", "0/8", "0/3"));
  EXPECT_THAT(names(drawn.train), ElementsAre("1/0", "1/0", "0/24", "0/13"));
}

TEST(FewShot, TakesAtMostFourOfEachClassForVal) {
  const FewShot drawn = sample_few_shot(dataset_of({50, 50}, {50, 50}), 16, 3);
  EXPECT_EQ(drawn.train.size(), 32U);
  EXPECT_EQ(drawn.val.size(), 8U);
}

TEST(FewShot, RepeatsNoImageWhereTheClassHasEnough) {
  const FewShot drawn = sample_few_shot(dataset_of({16, 17, 300}, {4, 5, 6}), 16, 0);
  const auto train = names(drawn.train);
  EXPECT_EQ(std::set(train.begin(), train.end()).size(), 48U);
}

TEST(FewShot, RepeatsImagesOfAClassThatHasTooFew) {
  const FewShot drawn = sample_few_shot(dataset_of({3}, {1}), 8, 0);
  EXPECT_EQ(drawn.train.size(), 8U);
  EXPECT_EQ(drawn.val.size(), 4U);
}

TEST(FewShot, ListsTheClassesWithTooFewTrainingImages) {
  EXPECT_THAT(sample_few_shot(dataset_of({3, 4, 2}, {1, 1, 1}), 4, 0).short_classes,
              ElementsAre("class 2", "class 0"));
  EXPECT_THAT(sample_few_shot(dataset_of({4, 4}, {1, 1}), 4, 0).short_classes, IsEmpty());
}

// The expected lists are what CPython 3.11's random.Random(1) draws: sample(30, 4), then choices(3, k=4).
TEST(FewShot, DrawsValWithTrainWhereThereIsNoValSplit) {
  Dataset dataset = dataset_of({3, 30}, {});
  dataset.val_is_drawn_from_train = true;
  const FewShot drawn = sample_few_shot(dataset, 2, 1);
  EXPECT_THAT(names(drawn.train), ElementsAre("1/4", "1/18", "0/2", "0/0"));
  EXPECT_THAT(names(drawn.val), ElementsAre("1/27", "1/25", "0/1", "0/1"));
  EXPECT_THAT(drawn.short_classes, ElementsAre("class 0"));
}

TEST(FewShot, DrawsTrainAndValApartWhereThereIsNoValSplit) {
  Dataset dataset = dataset_of({20, 25, 300}, {});
  dataset.val_is_drawn_from_train = true;
  const FewShot drawn = sample_few_shot(dataset, 16, 5);
  EXPECT_EQ(drawn.train.size(), 48U);
  EXPECT_EQ(drawn.val.size(), 12U);
  auto all = names(drawn.train);
  for (const auto& name : names(drawn.val)) all.push_back(name);
  EXPECT_EQ(std::set(all.begin(), all.end()).size(), 60U);
}

TEST(FewShot, DrawsTheSameForASeedAndItsNegative) {
  const Dataset dataset = dataset_of({40, 40}, {9, 9});
  EXPECT_EQ(names(sample_few_shot(dataset, 4, -7).train), names(sample_few_shot(dataset, 4, 7).train));
  EXPECT_NE(names(sample_few_shot(dataset, 4, 0).train), names(sample_few_shot(dataset, 4, 7).train));
}

TEST(FewShot, RefusesNoShots) { EXPECT_THROW(sample_few_shot(dataset_of({1}, {1}), 0, 1), ConfigError); }

}  // namespace
}  // namespace clip_lora::data
