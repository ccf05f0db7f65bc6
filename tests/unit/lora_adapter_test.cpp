#include "clip_lora/lora/lora_adapter.hpp"

#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Everything adapted, with dropout.
lora::LoraOptions everything() {
  lora::LoraOptions options;
  options.projections = {.q = true, .k = true, .v = true, .o = true};
  return options;
}

class AdapterTest : public ::testing::Test {
 protected:
  at::Tensor image_features() {
    return without_gradients([&] { return clip_->encode_image(images_); });
  }
  at::Tensor text_features() {
    return without_gradients([&] { return clip_->encode_text(prompts_); });
  }

  model::Clip clip_ = random_clip();
  at::Tensor images_ = random_images(tiny_architecture(), 3);
  model::Prompts prompts_ = model::make_prompts(random_prompt_rows(tiny_architecture(), {5, 9, 3}));

 private:
  template <typename Action>
  static at::Tensor without_gradients(const Action& action) {
    const at::NoGradGuard no_grad;
    return action();
  }
};

TEST_F(AdapterTest, FreshAIsKaimingUniformAndBIsZero) {
  lora::LoraOptions options = everything();
  options.rank = 64;
  for (const auto& [name, tensor] : lora::LoraAdapter(clip_, options).state_dict()) {
    EXPECT_EQ(tensor.scalar_type(), at::kFloat) << name;
    EXPECT_TRUE(tensor.requires_grad() && tensor.is_leaf()) << name;
    const std::int64_t width = name.starts_with("visual.") ? 192 : 128;
    const double bound = 1.0 / std::sqrt(static_cast<double>(width));
    if (name.ends_with("w_lora_B")) {
      EXPECT_TRUE(identical(tensor, at::zeros({width, 64}))) << name;
    } else {
      EXPECT_EQ(tensor.sizes(), (std::vector<std::int64_t>{64, width})) << name;
      EXPECT_LE(tensor.abs().max().item<double>(), bound) << name;
      // A uniform deviate's; 8,192 draws or more know theirs to a percent.
      EXPECT_NEAR(tensor.std().item<double>() / (bound / std::sqrt(3.0)), 1.0, 0.04) << name;
      EXPECT_NEAR(tensor.mean().item<double>(), 0.0, 0.05 * bound) << name;
    }
  }
}

TEST_F(AdapterTest, BlocksAreTheTextTowersFirst) {
  lora::LoraOptions options;
  options.position = lora::Position::kHalfUp;
  const lora::LoraAdapter adapter(clip_, options);
  std::vector<std::pair<bool, std::int64_t>> blocks;  // vision?, index
  for (const auto& block : adapter.blocks())
    blocks.emplace_back(block.tower == lora::Tower::kVision, block.index);
  EXPECT_THAT(blocks,
              ElementsAre(std::pair(false, 2), std::pair(false, 3), std::pair(true, 1), std::pair(true, 2)));
}

TEST_F(AdapterTest, ParametersComeBlockByBlockInTheOrderQKVO) {
  const lora::LoraAdapter adapter(clip_, everything());
  const auto parameters = adapter.parameters();
  const auto tensors = adapter.state_dict();
  ASSERT_EQ(parameters.size(), 7U * 8U);
  ASSERT_EQ(tensors.size(), 7U * 8U);
  std::size_t next = 0;
  for (const auto& block : adapter.blocks()) {
    const std::string tower = block.tower == lora::Tower::kVision ? "visual." : "";
    for (const std::string projection : {"q_proj", "k_proj", "v_proj", "proj"}) {
      for (const std::string matrix : {"w_lora_A", "w_lora_B"}) {
        const auto name = tower + "transformer.resblocks." + std::to_string(block.index) + ".attn." +
                          projection + "." + matrix;
        ASSERT_TRUE(tensors.contains(name)) << name;
        EXPECT_TRUE(parameters[next++].is_same(tensors.at(name))) << name;
      }
    }
  }
}

TEST(AdapterSize, IsThePapersForThePublishedModels) {
  const auto count = [](const std::string& name) {
    const model::Clip clip(*model::published_architecture(name));  // unset weights take no memory
    return lora::LoraAdapter(clip, {}).parameter_count();
  };
  EXPECT_EQ(count("ViT-B/16"), 184'320);
  EXPECT_EQ(count("ViT-B/32"), 184'320);
  EXPECT_EQ(count("ViT-L/14"), 405'504);
}

TEST_F(AdapterTest, AFreshAdapterChangesNotABit) {
  const auto image = image_features(), text = text_features();
  const lora::LoraAdapter adapter(clip_, everything());
  adapter.attach(clip_);
  EXPECT_TRUE(identical(image_features(), image));
  EXPECT_TRUE(identical(text_features(), text));
  clip_->train();  // with dropout
  EXPECT_TRUE(identical(image_features(), image));
  EXPECT_TRUE(identical(text_features(), text));
  clip_->eval();
  const lora::MergedScope merged(clip_, adapter);
  EXPECT_TRUE(identical(image_features(), image));
  EXPECT_TRUE(identical(text_features(), text));
}

TEST_F(AdapterTest, AttachedUpdatesGiveTheOraclesFeatures) {
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  adapter.attach(clip_);
  EXPECT_TRUE(close(image_features(), oracle_image_features(oracle_of(clip_, adapter), images_), 2e-5));
  const auto rows = random_prompt_rows(tiny_architecture(), {5, 9, 3});
  prompts_ = model::make_prompts(rows);
  EXPECT_TRUE(close(text_features(), oracle_text_features(oracle_of(clip_, adapter), as_tensor(rows)), 2e-5));
}

TEST_F(AdapterTest, MergedEqualsUnmerged) {
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  const auto plain = image_features();
  adapter.attach(clip_);
  const auto image = image_features(), text = text_features();
  EXPECT_FALSE(close(image, plain, 1e-2));  // or else this test would see nothing
  const lora::MergedScope merged(clip_, adapter);
  EXPECT_TRUE(close(image_features(), image, 1e-5));
  EXPECT_TRUE(close(text_features(), text, 1e-5));
}

TEST_F(AdapterTest, MergedScopeGivesTheWeightsBackBitForBit) {
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  const auto before = snapshot(model::state_dict(clip_));
  adapter.attach(clip_);
  const auto image = image_features();
  {
    const lora::MergedScope merged(clip_, adapter);
    const std::string name = "transformer.resblocks.0.attn.in_proj_weight";
    EXPECT_FALSE(identical(model::state_dict(clip_).at(name), before.at(name)));
  }
  for (const auto& [name, tensor] : model::state_dict(clip_))
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  EXPECT_TRUE(identical(image_features(), image)) << "the updates are attached again";
}

TEST_F(AdapterTest, MergedScopeWorksOnAnUnattachedAdapterAndLeavesItUnattached) {
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  const auto plain = image_features();
  {
    const lora::MergedScope merged(clip_, adapter);
    EXPECT_FALSE(close(image_features(), plain, 1e-2));
  }
  EXPECT_TRUE(identical(image_features(), plain));
}

TEST_F(AdapterTest, DetachedUpdatesAreGone) {
  const auto plain = image_features();
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  adapter.attach(clip_);
  lora::detach(clip_);
  EXPECT_TRUE(identical(image_features(), plain));
}

TEST_F(AdapterTest, DropoutIsDrawnAnewInTrainingAndAbsentInEvaluation) {
  const lora::LoraAdapter adapter(clip_, everything());
  randomise(adapter);
  adapter.attach(clip_);
  EXPECT_TRUE(identical(image_features(), image_features()));
  clip_->train();
  EXPECT_FALSE(close(image_features(), image_features(), 1e-3));
  EXPECT_FALSE(close(text_features(), text_features(), 1e-3));
}

TEST_F(AdapterTest, ARankAboveAWidthIsRefusedNamingBoth) {
  lora::LoraOptions options;
  options.rank = 129;  // the text tower is 128 wide, the vision tower 192
  const auto message = message_of<ConfigError>([&] { lora::LoraAdapter(clip_, options); });
  EXPECT_THAT(message, AllOf(HasSubstr("129"), HasSubstr("128")));
  options.encoder = lora::Encoder::kVision;
  EXPECT_NO_THROW(lora::LoraAdapter(clip_, options));
}

TEST_F(AdapterTest, ThatWouldAdaptNothingIsRefused) {
  auto shallow = tiny_architecture();
  shallow.vision.layers = shallow.text.layers = 2;
  lora::LoraOptions options;
  options.position = lora::Position::kBottom;  // a third of two, rounded down
  EXPECT_THAT(message_of<ConfigError>([&] { lora::LoraAdapter(random_clip(shallow), options); }),
              HasSubstr("bottom"));
}

}  // namespace
}  // namespace clip_lora::testing
