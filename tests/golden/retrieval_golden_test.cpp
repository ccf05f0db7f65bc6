#include <gtest/gtest.h>
#include <torch/torch.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "clip_lora/io/checkpoint_files.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/train/retrieval.hpp"
#include "support/test_data.hpp"

namespace clip_lora::train {
namespace {

// Percentage points. The largest that float32 sums in another order have moved is one caption of 1,000.
constexpr double kTolerance = 0.2;

struct Split {
  std::vector<data::Item> images;
  std::vector<std::string> captions;
  std::vector<std::int64_t> image_of_caption;
};

/// The test split of Karpathy's format.
Split test_split(const std::filesystem::path& folder) {
  std::ifstream file(folder / "dataset_flickr8k.json");
  const auto json = nlohmann::json::parse(file);
  Split split;
  for (const auto& image : json.at("images")) {
    if (image.at("split") != "test") continue;
    for (const auto& sentence : image.at("sentences")) {
      split.captions.push_back(sentence.at("raw"));
      split.image_of_caption.push_back(std::ssize(split.images));
    }
    split.images.push_back({(folder / "images" / image.at("filename").get<std::string>()).string(), 0});
  }
  return split;
}

void expect_recall(const Recall& found, double at_1, double at_5, double at_10) {
  EXPECT_NEAR(found.at_1, at_1, kTolerance);
  EXPECT_NEAR(found.at_5, at_5, kTolerance);
  EXPECT_NEAR(found.at_10, at_10, kTolerance);
}

TEST(RetrievalGolden, ZeroShotOnFlickr8kIsTheReferences) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto& folder = clip_lora::testing::test_data();
  const auto model =
      model::load_clip(io::read_checkpoint_files(folder / "models" / "small_clip_64px.safetensors"));
  const Split split = test_split(folder / "data" / "retrieval" / "flickr8k_subset");
  ASSERT_EQ(split.images.size(), 200U);
  data::EvaluationLoader loader(split.images, model.preprocessing, {.batch_size = 64, .workers = 2});
  const auto ignore_progress = [](std::int64_t) {};
  const auto images = image_features(model.clip, loader, ignore_progress);
  const auto texts = caption_features(model.clip, text::Tokenizer(), split.captions, ignore_progress);
  const auto found = compute_recall(images, texts, torch::tensor(split.image_of_caption, at::kLong));
  EXPECT_EQ(found.images, 200);
  EXPECT_EQ(found.texts, 1000);
  expect_recall(found.image_to_text, 85.0, 100.0, 100.0);
  expect_recall(found.text_to_image, 70.6, 92.4, 96.1);
}

}  // namespace
}  // namespace clip_lora::train
