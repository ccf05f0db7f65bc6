#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

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
using ::testing::HasSubstr;

struct Layout {
  std::string dataset;
  std::filesystem::path image_folder;
  std::string split_file;
};

class DatasetLayout : public ::testing::TestWithParam<Layout> {};

TEST_P(DatasetLayout, IsFoundUnderTheRoot) {
  const clip_lora::testing::TemporaryFolder root;
  const Layout& layout = GetParam();
  std::filesystem::create_directories(root / layout.image_folder);
  write_bytes(
      root / layout.image_folder.parent_path() / layout.split_file,
      R"({"train": [["a.jpg", 0, "x_y"]], "val": [["b.jpg", 0, "x_y"]], "test": [["c.jpg", 0, "x_y"]]})");
  const Dataset dataset = load_dataset(layout.dataset, root.path());
  EXPECT_EQ(dataset.name, layout.dataset);
  EXPECT_EQ(dataset.train[0].image, root / layout.image_folder / "a.jpg");
  EXPECT_EQ(dataset.class_names, std::vector<std::string>{"x y"});
}

INSTANTIATE_TEST_SUITE_P(
    All, DatasetLayout,
    ::testing::Values(Layout{"eurosat", "eurosat/2750", "split_zhou_EuroSAT.json"},
                      Layout{"caltech101", "caltech-101/101_ObjectCategories", "split_zhou_Caltech101.json"},
                      Layout{"caltech101", "Caltech101/101_ObjectCategories", "split_zhou_Caltech101.json"},
                      Layout{"shapes", "shapes/images", "split_zhou_Shapes.json"}));

TEST(DatasetNames, AreSorted) {
  const auto names = dataset_names();
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_THAT(names, ::testing::IsSupersetOf({"caltech101", "eurosat", "shapes"}));
}

TEST(LoadDataset, OffersTheNearestNameForAnUnknownOne) {
  EXPECT_THAT(message_of<ConfigError>([] { load_dataset("eurosta", "."); }),
              AllOf(HasSubstr("unknown data set 'eurosta'"), HasSubstr("did you mean 'eurosat'?")));
}

TEST(RequireImages, CountsTheMissingAndNamesTheFirstThree) {
  const clip_lora::testing::TemporaryFolder folder;
  write_bytes(folder / "here.jpg", "x");
  std::vector<Item> items = {{folder / "here.jpg", 0}};
  EXPECT_NO_THROW(require_images(items, "train split"));
  for (const std::string name : {"1", "2", "3", "4", "5"}) items.push_back({folder / (name + ".jpg"), 0});
  EXPECT_THAT(message_of<DataError>([&] { require_images(items, "train split"); }),
              AllOf(HasSubstr("train split: 5 of 6 images are missing"),
                    HasSubstr((folder / "3.jpg").string()), HasSubstr("and 2 more")));
}

}  // namespace
}  // namespace clip_lora::data
