#include <gmock/gmock.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/model/naming.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string complaint_about(const io::StateDict& tensors) {
  auto message = message_of<CheckpointError>([&] { model::load_clip(tensors, "model.pt"); });
  EXPECT_THAT(message, HasSubstr("model.pt"));
  return message;
}

io::CheckpointFiles files_of(const io::StateDict& tensors) {
  io::CheckpointFiles files;
  files.path = "model.pt";
  files.tensors = tensors;
  return files;
}

TEST(LoadClip, GivesBackTheWeightsInFloat32) {
  io::StateDict half;
  for (const auto& [name, tensor] : model::state_dict(random_clip())) half[name] = tensor.to(at::kHalf);
  const auto loaded = model::load_clip(half, "model.pt");
  const auto weights = model::state_dict(loaded);
  ASSERT_EQ(weights.size(), half.size());
  for (const auto& [name, tensor] : half)
    EXPECT_TRUE(identical(weights.at(name), tensor.to(at::kFloat))) << name;
  EXPECT_EQ(loaded->architecture(), tiny_architecture());
}

TEST(LoadClip, IsFrozenAndInEvaluationMode) {
  const auto loaded = model::load_clip(model::state_dict(random_clip()), "model.pt");
  EXPECT_FALSE(loaded->is_training());
  for (const auto& [name, tensor] : model::state_dict(loaded)) EXPECT_FALSE(tensor.requires_grad()) << name;
}

TEST(LoadClip, CopiesSoThatTheFilesTensorsStayAsTheyAre) {
  const auto original = random_clip();
  const auto before = snapshot(model::state_dict(original));
  const auto loaded = model::load_clip(model::state_dict(original), "model.pt");
  for (const auto& [name, tensor] : model::state_dict(loaded)) tensor.zero_();
  for (const auto& [name, tensor] : before)
    EXPECT_TRUE(identical(model::state_dict(original).at(name), tensor)) << name;
}

TEST(LoadClip, IgnoresTheScalarsOfOldArchives) {
  auto tensors = model::state_dict(random_clip());
  for (const std::string name : {"input_resolution", "context_length", "vocab_size"})
    tensors[name] = at::tensor(77);
  EXPECT_NO_THROW(model::load_clip(tensors, "model.pt"));
}

TEST(LoadClip, ListsEverythingMissingUnexpectedAndMisshapedAtOnce) {
  auto tensors = model::state_dict(random_clip());
  tensors.erase("visual.proj");
  tensors.erase("ln_final.bias");
  tensors["surprise"] = at::zeros({1});
  tensors["logit_scale"] = at::zeros({3});
  tensors["visual.ln_pre.weight"] = at::ones({192}, at::kLong);
  EXPECT_THAT(complaint_about(tensors),
              AllOf(HasSubstr("visual.proj"), HasSubstr("ln_final.bias"), HasSubstr("surprise"),
                    HasSubstr("logit_scale"), HasSubstr("[3]"), HasSubstr("visual.ln_pre.weight")));
}

TEST(LoadClip, ListsTenOfManyAndCountsTheRest) {
  auto tensors = model::state_dict(random_clip());
  for (int i = 10; i < 27; ++i) tensors["surprise" + std::to_string(i)] = at::zeros({1});
  const auto message = complaint_about(tensors);
  EXPECT_THAT(message, AllOf(HasSubstr("17"), HasSubstr("surprise10"), HasSubstr("surprise19")));
  EXPECT_THAT(message, AllOf(Not(HasSubstr("surprise20")), HasSubstr("7 more")));
}

TEST(LoadClip, ABlockMissingInTheMiddleIsRefused) {
  auto tensors = model::state_dict(random_clip());
  std::erase_if(tensors, [](const auto& item) { return item.first.starts_with("transformer.resblocks.1."); });
  EXPECT_THAT(complaint_about(tensors), HasSubstr("transformer.resblocks."));
}

TEST(LoadClip, WidthsThatNoMemoryHoldsAreRefusedAsABrokenCheckpoint) {
  auto tensors = model::state_dict(random_clip());
  const std::int64_t absurd = 64'000'000;
  tensors["visual.conv1.weight"] = at::zeros({1}).expand({absurd, 3, 8, 8});
  EXPECT_THAT(complaint_about(tensors), HasSubstr("visual."));
}

TEST(LoadClip, PositionsThatNoMemoryHoldsAreRefusedAsABrokenCheckpoint) {
  auto tensors = model::state_dict(random_clip());
  tensors["positional_embedding"] = at::zeros({1}).expand({1 << 26, 1});  // [context_length, 128] is expected
  EXPECT_THAT(complaint_about(tensors), HasSubstr("damaged"));
}

TEST(LoadClip, RefusesInfinitiesAndNaNNamingTheTensorsAndHowMany) {
  auto tensors = snapshot(model::state_dict(random_clip()));
  tensors.at("visual.proj")[3][5] = std::nan("");
  tensors.at("visual.proj")[4][0] = std::numeric_limits<float>::infinity();
  tensors["ln_final.bias"] = tensors.at("ln_final.bias").to(at::kDouble);
  tensors.at("ln_final.bias")[7] = -1e300;  // which float32 has no number for
  EXPECT_THAT(
      complaint_about(tensors),
      AllOf(HasSubstr("infinities or NaN"), HasSubstr("visual.proj (2 of 9216 values)"),
            HasSubstr("ln_final.bias (1 of 128 values)"), Not(HasSubstr("ln_post")), HasSubstr("hint")));
}

TEST(LoadClip, TakesWeightsWhoseSumOverflows) {
  auto tensors = snapshot(model::state_dict(random_clip()));
  tensors.at("visual.proj").fill_(3e38);
  EXPECT_NO_THROW(model::load_clip(tensors, "model.pt"));
}

TEST(LoadClip, NamesBrokenTensorsAsTheFileDoes) {
  auto tensors = snapshot(model::to_hugging_face(model::state_dict(random_clip())));
  const std::string name = "vision_model.encoder.layers.1.self_attn.k_proj.weight";
  tensors.at(name)[0][0] = std::nan("");
  const auto message = message_of<CheckpointError>([&] { model::load_clip(files_of(tensors)); });
  EXPECT_THAT(message, AllOf(HasSubstr("model.pt"), HasSubstr(name + " (1 of 36864 values)")));
}

TEST(LoadClip, RefusesALogitScaleThatNoClipHas) {
  auto tensors = snapshot(model::state_dict(random_clip()));
  const auto load = [&](double logit_scale) {
    tensors.at("logit_scale").fill_(logit_scale);
    return model::load_clip(files_of(tensors)).logit_scale;
  };
  EXPECT_NEAR(load(std::log(100.0)), 100.0, 1e-4);  // rounded to float32 before
  EXPECT_NEAR(load(0.0), 1.0, 0.0);
  for (const double extreme : {200.0, -200.0, 14.0, -14.0, 3e38}) {
    EXPECT_THAT(message_of<CheckpointError>([&] { load(extreme); }),
                AllOf(HasSubstr("model.pt"), HasSubstr("logit_scale"), HasSubstr("hint")))
        << extreme;
  }
  EXPECT_THAT(message_of<CheckpointError>([&] { load(std::nan("")); }),
              HasSubstr("logit_scale (1 of 1 values)"));
}

TEST(Initialise, HasTheDeviationsOfTheRelease) {
  model::Clip clip(tiny_architecture());
  model::initialise(clip);
  const auto weights = model::state_dict(clip);
  // Several thousand draws each: their deviation is known to a few percent.
  const auto expect_deviation = [&](const std::string& name, double deviation) {
    EXPECT_NEAR(weights.at(name).std().item<double>() / deviation, 1.0, 0.05) << name;
  };
  expect_deviation("token_embedding.weight", 0.02);
  expect_deviation("positional_embedding", 0.01);
  expect_deviation("text_projection", 1.0 / std::sqrt(128.0));
  expect_deviation("visual.proj", 1.0 / std::sqrt(192.0));
  expect_deviation("transformer.resblocks.0.attn.in_proj_weight", 1.0 / std::sqrt(128.0));
  expect_deviation("transformer.resblocks.3.attn.out_proj.weight", 1.0 / std::sqrt(128.0 * 2 * 4));
  expect_deviation("transformer.resblocks.1.mlp.c_fc.weight", 1.0 / std::sqrt(2 * 128.0));
  expect_deviation("transformer.resblocks.1.mlp.c_proj.weight", 1.0 / std::sqrt(128.0 * 2 * 4));
  EXPECT_NEAR(weights.at("logit_scale").item<double>(), std::log(1.0 / 0.07), 1e-6);
  EXPECT_TRUE(identical(weights.at("ln_final.weight"), at::ones({128})));
  EXPECT_TRUE(identical(weights.at("visual.transformer.resblocks.2.mlp.c_proj.bias"), at::zeros({192})));
}

}  // namespace
}  // namespace clip_lora::testing
