#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/dataset.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::message_of;
using clip_lora::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(MissingImages, AreThoseThatDoNotExistInTheirOrder) {
  const clip_lora::testing::TemporaryFolder folder;
  write_bytes(folder / "here.jpg", "");
  const std::string here = folder / "here.jpg";
  const auto missing = missing_images({{folder / "b.jpg", 1}, {here, 2}, {folder / "a.jpg", 3}});
  ASSERT_EQ(missing.size(), 2U);
  EXPECT_EQ(missing[0].label, 1);
  EXPECT_EQ(missing[1].label, 3);
  EXPECT_THAT(missing_images({}), IsEmpty());
}

TEST(RequireImages, CountsTheMissingAndNamesTheFirstThree) {
  const clip_lora::testing::TemporaryFolder folder;
  write_bytes(folder / "here.jpg", "x");
  std::vector<Item> items = {{folder / "here.jpg", 0}};
  EXPECT_NO_THROW(require_images(items, "test split"));
  for (const std::string name : {"1", "2", "3", "4", "5"}) items.push_back({folder / (name + ".jpg"), 0});
  EXPECT_THAT(
      message_of<DataError>([&] { require_images(items, "test split"); }),
      AllOf(HasSubstr("test split: 5 of 6 images are missing"), HasSubstr((folder / "3.jpg").string()),
            HasSubstr("and 2 more"), HasSubstr("--allow_missing")));
}

TEST(DuplicateNames, AreListedOnceInTheOrderOfLabels) {
  EXPECT_THAT(duplicate_names({"b", "a", "c", "a", "b", "a"}), ElementsAre("b", "a"));
  EXPECT_THAT(duplicate_names({"a", "A", "b"}), IsEmpty());
}

TEST(Oddities, AreNamesGivenTwiceAndClassesThatASplitLacks) {
  Dataset dataset;
  dataset.class_names = {"crane", "heron", "crane"};
  dataset.train = {{"a", 0}, {"b", 2}};
  dataset.test = {{"c", 0}, {"d", 1}};
  EXPECT_THAT(find_oddities(dataset), ElementsAre("several classes have the same name: 'crane'",
                                                  "classes without training images: 'heron'",
                                                  "classes without test images: 'crane'"));
}

}  // namespace
}  // namespace clip_lora::data
