#include <gtest/gtest.h>

#include <filesystem>

#include "clip_lora/data/captions.hpp"
#include "support/test_data.hpp"

namespace clip_lora::data {
namespace {

TEST(CaptionsGolden, AreThoseOfFlickr8k) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto folder = testing::test_data() / "data/retrieval/flickr8k_subset";
  const CaptionDataset dataset = load_captions(folder / "dataset_flickr8k.json", "");
  EXPECT_EQ(dataset.name, "flickr8k_subset");
  ASSERT_EQ(dataset.train.size(), 700U);
  EXPECT_EQ(dataset.val.size(), 100U);
  EXPECT_EQ(dataset.test.size(), 200U);
  EXPECT_TRUE(dataset.warnings.empty());
  for (const auto* split : {&dataset.train, &dataset.val, &dataset.test}) {
    require_images(*split, "split");
    for (const CaptionedImage& image : *split) EXPECT_EQ(image.captions.size(), 5U);
  }
  // As Python's json reads them.
  EXPECT_EQ(dataset.train[0].image, (folder / "images/1000268201_693b08cb0e.jpg").string());
  EXPECT_EQ(dataset.train[0].captions[0],
            "A child in a pink dress is climbing up a set of stairs in an entry way .");
  EXPECT_EQ(dataset.train[0].captions[4], "A little girl in a pink dress going into a wooden cabin .");
  EXPECT_EQ(caption_pairs(dataset.train).items.size(), 3500U);
}

}  // namespace
}  // namespace clip_lora::data
