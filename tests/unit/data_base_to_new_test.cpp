#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/base_to_new.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> images_of(const std::vector<Item>& items) {
  std::vector<std::string> images;
  for (const Item& item : items) images.push_back(item.image);
  return images;
}

std::vector<int> labels_of(const std::vector<Item>& items) {
  std::vector<int> labels;
  for (const Item& item : items) labels.push_back(item.label);
  return labels;
}

/// Classes a, b, … with three training images, two of val and one test image each, the classes mixed.
Dataset dataset_of(int classes) {
  Dataset dataset;
  dataset.name = "letters";
  for (int label = 0; label < classes; ++label) {
    dataset.class_names.emplace_back(1, static_cast<char>('a' + label));
  }
  const auto add = [&](std::vector<Item>& items, const std::string& split, int each) {
    for (int i = 0; i < each; ++i) {
      for (int label = classes - 1; label >= 0; --label) {
        const std::string& name = dataset.class_names[static_cast<std::size_t>(label)];
        items.push_back({split + name + std::to_string(i), label});
      }
    }
  };
  add(dataset.train, "train/", 3);
  add(dataset.val, "val/", 2);
  add(dataset.test, "test/", 1);
  return dataset;
}

TEST(BaseToNew, TheLargerHalfIsBase) {
  EXPECT_EQ(base_class_count(2), 1);
  EXPECT_EQ(base_class_count(10), 5);
  EXPECT_EQ(base_class_count(37), 19);
  EXPECT_EQ(base_class_count(47), 24);
}

TEST(BaseToNew, CutsNamesAndItemsAndRenumbersLabels) {
  const Dataset whole = dataset_of(5);
  const Dataset base = base_classes(whole);
  EXPECT_EQ(base.name, "letters");
  EXPECT_THAT(base.class_names, ElementsAre("a", "b", "c"));
  EXPECT_THAT(images_of(base.test), ElementsAre("test/c0", "test/b0", "test/a0"));
  EXPECT_THAT(labels_of(base.test), ElementsAre(2, 1, 0));
  EXPECT_EQ(base.train.size(), 9U);
  EXPECT_EQ(base.val.size(), 6U);
  const Dataset rest = new_classes(whole);
  EXPECT_THAT(rest.class_names, ElementsAre("d", "e"));
  EXPECT_THAT(images_of(rest.test), ElementsAre("test/e0", "test/d0"));
  EXPECT_THAT(labels_of(rest.test), ElementsAre(1, 0));
  EXPECT_EQ(base.train.size() + rest.train.size(), whole.train.size());
}

TEST(BaseToNew, KeepsHowValidationIsDrawn) {
  Dataset whole = dataset_of(4);
  whole.val_is_drawn_from_train = true;
  EXPECT_TRUE(base_classes(whole).val_is_drawn_from_train);
  EXPECT_TRUE(new_classes(whole).val_is_drawn_from_train);
}

TEST(BaseToNew, TheBaseShotsAreThoseOfASampleOfAllClasses) {
  const Dataset whole = dataset_of(5);
  const FewShot sample = sample_few_shot(whole, 2, 1);
  const FewShot kept = base_classes(sample, whole);
  std::vector<std::string> expected;
  for (const Item& item : sample.train) {
    if (item.label < 3) expected.push_back(item.image);
  }
  EXPECT_EQ(images_of(kept.train), expected);
  EXPECT_EQ(kept.train.size(), 6U);
  EXPECT_EQ(kept.val.size(), 6U);
  EXPECT_NE(images_of(sample_few_shot(base_classes(whole), 2, 1).train), expected)
      << "a sample of the base classes alone is another one, or this test shows nothing";
}

TEST(BaseToNew, NamesTheBaseClassesWithTooFewImagesOnly) {
  const Dataset whole = dataset_of(4);
  const FewShot sample = sample_few_shot(whole, 8, 1);
  ASSERT_EQ(sample.short_classes.size(), 4U);
  EXPECT_THAT(base_classes(sample, whole).short_classes, ::testing::UnorderedElementsAre("a", "b"));
}

TEST(BaseToNew, NeedsTwoClasses) {
  EXPECT_EQ(new_classes(dataset_of(2)).class_names.size(), 1U);
  EXPECT_THAT(message_of<DataError>([] { base_classes(dataset_of(1)); }),
              HasSubstr("'letters' has 1 class,"));
  EXPECT_THAT(message_of<DataError>([] { new_classes(dataset_of(0)); }), HasSubstr("0 classes"));
}

}  // namespace
}  // namespace clip_lora::data
