#include <gmock/gmock.h>
#include <torch/torch.h>

#include "clip_lora/model/clip.hpp"
#include "support/close.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

// float32 through four blocks: a correct implementation reaches a few 1e-6.
constexpr double kTolerance = 2e-5;

class ClipForward : public ::testing::Test {
 protected:
  at::NoGradGuard no_grad_;
  model::Clip clip_ = random_clip();
  std::vector<std::vector<std::int64_t>> rows_ = random_prompt_rows(tiny_architecture(), {9, 3, 12, 1, 7});
};

TEST_F(ClipForward, ImageFeaturesEqualTheOracles) {
  const auto images = random_images(tiny_architecture(), 4);
  EXPECT_TRUE(
      close(clip_->encode_image(images), oracle_image_features(oracle_of(clip_), images), kTolerance));
}

TEST_F(ClipForward, TextFeaturesEqualTheOraclesOverTheWholeContext) {
  const auto features = clip_->encode_text(model::make_prompts(rows_));
  EXPECT_TRUE(close(features, oracle_text_features(oracle_of(clip_), as_tensor(rows_)), kTolerance));
}

TEST_F(ClipForward, CuttingPromptsAtTheLongestEndChangesNothing) {
  const auto cut = model::make_prompts(rows_);
  ASSERT_EQ(cut.ids.size(1), 13);
  const model::Prompts whole{as_tensor(rows_), cut.eot};
  EXPECT_TRUE(close(clip_->encode_text(cut), clip_->encode_text(whole), 1e-5));
}

TEST_F(ClipForward, APromptDoesNotFeelTheOthersOrWhatFollowsItsEnd) {
  const auto together = clip_->encode_text(model::make_prompts(rows_));
  for (std::size_t i = 0; i < rows_.size(); ++i) {
    const auto alone = clip_->encode_text(model::make_prompts({rows_[i]}));
    EXPECT_TRUE(close(alone[0], together[static_cast<std::int64_t>(i)], 1e-5)) << "prompt " << i;
  }
  auto scribbled = rows_;
  for (std::size_t at = 13; at < 77; ++at) scribbled[2][at] = 5;
  for (std::size_t at = 10; at < 77; ++at) scribbled[0][at] = 6;
  EXPECT_TRUE(close(clip_->encode_text(model::make_prompts(scribbled)), together, 1e-5));
}

TEST_F(ClipForward, AnImageDoesNotFeelTheOthersOfItsBatch) {
  const auto images = random_images(tiny_architecture(), 3);
  const auto together = clip_->encode_image(images);
  for (std::int64_t i = 0; i < 3; ++i) {
    EXPECT_TRUE(close(clip_->encode_image(images.slice(0, i, i + 1))[0], together[i], 1e-5)) << "image " << i;
  }
}

TEST_F(ClipForward, APromptMayFillTheWholeContext) {
  const auto rows = random_prompt_rows(tiny_architecture(), {76, 2});
  const auto features = clip_->encode_text(model::make_prompts(rows));
  EXPECT_TRUE(close(features, oracle_text_features(oracle_of(clip_), as_tensor(rows)), kTolerance));
}

TEST(Prompts, KnowTheirEndsAndAreCutAfterTheLongest) {
  const auto rows = random_prompt_rows(tiny_architecture(), {4, 2, 8});
  const auto prompts = model::make_prompts(rows);
  EXPECT_TRUE(identical(prompts.eot, torch::tensor({4, 2, 8}, at::kLong)));
  EXPECT_TRUE(identical(prompts.ids, as_tensor(rows).slice(1, 0, 9)));
  const auto part = prompts.slice(1, 3);
  EXPECT_TRUE(identical(part.eot, torch::tensor({2, 8}, at::kLong)));
  EXPECT_TRUE(identical(part.ids, as_tensor(rows).slice(0, 1, 3).slice(1, 0, 9)));
}

}  // namespace
}  // namespace clip_lora::testing
