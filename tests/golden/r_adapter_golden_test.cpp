#include <gtest/gtest.h>
#include <torch/torch.h>

#include <sstream>
#include <string>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/ops/contrastive.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "golden/compute_cases.hpp"
#include "support/close.hpp"
#include "support/dropping_model.hpp"
#include "support/golden.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

constexpr double kMargin = 0.05;
constexpr double kLabelSmoothing = 0.02;
constexpr double kDrop = 0.2;
constexpr double kHalfLossAfterUpdates = 1e-2;  // after some updates in float16

/// "vision.0.attn.weight" by the name that it has in an adapter here.
std::string our_name(const std::string& golden) {
  std::istringstream parts(golden);
  std::string tower, index, module, tensor;
  std::getline(parts, tower, '.');
  std::getline(parts, index, '.');
  std::getline(parts, module, '.');
  std::getline(parts, tensor);
  return (tower == "vision" ? "visual." : "") + std::string("transformer.resblocks.") + index + ".adapter_" +
         module + "." + tensor;
}

io::StateDict renamed(const io::StateDict& golden) {
  io::StateDict ours;
  for (const auto& [name, tensor] : golden) ours[our_name(name)] = tensor;
  return ours;
}

lora::AdapterOptions full_rank() {
  lora::AdapterOptions options;
  options.method = "r_adapter";
  options.r_adapter.drop = 0.0;
  return options;
}

class RAdapterGolden : public GoldenTest {
 protected:
  void SetUp() override {
    GoldenTest::SetUp();
    if (IsSkipped()) return;
    clip_ = tiny_clip();
    const auto batch = golden_tensors("tiny_forward.safetensors");
    images_ = on_device(batch.at("images"));
    labels_ = on_device(batch.at("targets"));
    const model::Prompts classes = tiny_prompts();
    texts_ = {classes.ids.index_select(0, labels_), classes.eot.index_select(0, labels_)};
  }

  std::shared_ptr<lora::Adapter> adapter_of(const io::StateDict& values) {
    auto adapter = lora::make_adapter(clip_, full_rank());
    assign(*adapter, renamed(values));
    return adapter;
  }

  double logit_scale() const { return clip_->logit_scale.to(at::kDouble).exp().item<double>(); }

  at::Tensor loss_of(const at::Tensor& images, const at::Tensor& texts) const {
    return contrastive(images, texts).loss.view({1});
  }
  ops::ContrastiveLoss contrastive(const at::Tensor& images, const at::Tensor& texts) const {
    return ops::contrastive_loss(
        images.detach(), texts.detach(), labels_,
        {.logit_scale = logit_scale(), .margin = kMargin, .label_smoothing = kLabelSmoothing}, true, true);
  }

  engine::TrainingStepOptions step_options() const {
    engine::TrainingStepOptions options;
    options.loss = engine::Loss::kContrastive;
    options.logit_scale = logit_scale();
    options.margin = kMargin;
    options.label_smoothing = kLabelSmoothing;
    options.batch_size = images_.size(0);
    return options;
  }

  void expect_features(const io::StateDict& golden, const std::string& what) {
    const at::NoGradGuard no_grad;
    EXPECT_TRUE(
        matches(ops::l2_normalise(clip_->encode_image(images_)), golden.at("image_features"), kHalfFeatures))
        << what;
    EXPECT_TRUE(
        matches(ops::l2_normalise(clip_->encode_text(texts_)), golden.at("text_features"), kHalfFeatures))
        << what;
  }

  model::Clip clip_{nullptr};
  at::Tensor images_;
  at::Tensor labels_;
  model::Prompts texts_;
};

TEST_P(RAdapterGolden, AttachedFeaturesAndLossAreTheReleases) {
  const at::NoGradGuard no_grad;
  const auto golden = golden_tensors("radapter_forward.safetensors");
  const auto adapter = adapter_of(below(golden, "param/"));
  ASSERT_TRUE(adapter->attach(clip_));
  expect_features(golden, "in training");
  EXPECT_TRUE(matches(loss_of(clip_->encode_image(images_), clip_->encode_text(texts_)), golden.at("loss"),
                      kHalfFeatures));
}

TEST_P(RAdapterGolden, LossAndGradientsAreTheReleases) {
  const auto golden = golden_tensors("radapter_forward.safetensors");
  const auto adapter = adapter_of(below(golden, "param/"));
  engine::TrainingStep step(clip_, *adapter, {}, step_options());
  const auto gradients = renamed(below(golden, "grad/"));
  ASSERT_EQ(adapter->state_dict().size(), gradients.size());
  for (int i = 0; i < 2; ++i) {
    const auto loss = step.compute_gradients(images_, labels_, texts_);
    EXPECT_TRUE(matches(loss.view({1}), golden.at("loss"), kHalfFeatures));
    for (const auto& [name, tensor] : adapter->state_dict()) {
      EXPECT_TRUE(matches(tensor.grad() / step.loss_scale(), gradients.at(name), kHalfGradients)) << name;
    }
  }
}

TEST_P(RAdapterGolden, MergedAveragesGiveTheReleasesFeatures) {
  const auto golden = golden_tensors("radapter_forward.safetensors");
  const auto adapter = adapter_of(below(golden, "ema/"));
  for (const auto& [folder, scale] : {std::pair("eval/", 0.5), std::pair("eval08/", 0.8)}) {
    const lora::MergedScope merged(clip_, *adapter, scale);
    expect_features(below(golden, folder), folder);
  }
}

TEST_P(RAdapterGolden, MergedWeightsAreTheReleases) {
  const auto golden = below(golden_tensors("radapter_forward.safetensors"), "merged/");
  const auto adapter = adapter_of(below(golden_tensors("radapter_forward.safetensors"), "ema/"));
  const lora::MergedScope merged(clip_, *adapter, 0.5);
  const auto weights = model::state_dict(clip_);
  ASSERT_EQ(golden.size(), 4U);
  for (const auto& [name, tensor] : golden) {
    EXPECT_TRUE(matches(weights.at(name), tensor, kHalfFeatures)) << name;
  }
}

TEST_P(RAdapterGolden, WithGivenKeepMasksFeaturesLossAndGradientAreTheReleases) {
  const auto all = golden_tensors("radapter_forward.safetensors");
  const auto golden = below(all, "drop/");
  const auto adapter = adapter_of(below(all, "param/"));
  ASSERT_TRUE(adapter->attach(clip_));
  const Dropping given = [&](const Module& module, std::int64_t, std::int64_t length) {
    const auto keep = golden.at("keep." + lora::to_string(module.tower) + "." + std::to_string(module.block) +
                                (module.is_mlp ? ".mlp" : ".attn"));
    return keep.slice(0, 0, length).to(GetParam().device) / (1.0 - kDrop);
  };
  const auto images = dropping_image_features(clip_, images_, given);
  const auto texts = dropping_text_features(clip_, texts_, given);
  EXPECT_TRUE(matches(ops::l2_normalise(images), golden.at("image_features"), kHalfFeatures));
  EXPECT_TRUE(matches(ops::l2_normalise(texts), golden.at("text_features"), kHalfFeatures));
  const auto loss = contrastive(images, texts);
  EXPECT_TRUE(matches(loss.loss.view({1}), golden.at("loss"), kHalfFeatures));
  torch::autograd::backward({images, texts}, {loss.d_image_features, loss.d_text_features});
  const std::string name = "vision.0.attn.weight";
  EXPECT_TRUE(
      matches(adapter->state_dict().at(our_name(name)).grad(), golden.at("grad." + name), kHalfGradients));
}

/// Weights after 20 updates, by the norm: AdamW divides a gradient by its own size, so that of single entries
/// with hardly any the golden's own float32 rounding decides; a run in float64 is up to 5e-4 of the largest
/// away there.
constexpr double kTrajectory = 5e-5;
constexpr double kHalfTrajectory = 5e-2;  // W starts at 0 and is all rounding and signal

TEST_P(RAdapterGolden, TwentyUpdatesFollowTheReleases) {
  const auto golden = golden_tensors("radapter_trajectory.safetensors");
  const auto adapter = lora::make_adapter(clip_, full_rank());
  auto options = step_options();
  options.optimiser = {.learning_rate = 5e-3,
                       .final_learning_rate = 0.0,
                       .weight_decay = 0.0,
                       .warmup_iterations = 5,
                       .largest_gradient_norm = 1.0,
                       .average_decay = 0.9};
  options.total_iterations = 20;
  engine::TrainingStep step(clip_, *adapter, {}, options);
  for (std::int64_t t = 0; t < 20; ++t) {
    EXPECT_NEAR(step.learning_rate(), golden.at("lrs")[t].item<double>(), 1e-15) << "iteration " << t;
    step.run(images_, labels_, texts_);
    const engine::Measurements measured = step.measure()();
    EXPECT_TRUE(matches(at::scalar_tensor(measured.loss), golden.at("losses")[t], kHalfLossAfterUpdates))
        << "loss " << t;
    EXPECT_TRUE(
        matches(at::scalar_tensor(measured.gradient_norm), golden.at("grad_norms")[t], kHalfGradients))
        << "norm " << t;
  }
  const auto expect_weights = [&](const std::string& folder) {
    for (const auto& [name, expected] : renamed(below(golden, folder))) {
      EXPECT_TRUE(
          close_in_norm(adapter->state_dict().at(name), expected, in_half() ? kHalfTrajectory : kTrajectory))
          << folder << name;
    }
  };
  expect_weights("final/");
  step.show_averages(true);
  expect_weights("final_ema/");
  {
    const lora::MergedScope merged(clip_, *adapter, 0.5);
    expect_features(below(golden, "eval/"), "eval");
  }
  step.show_averages(false);
  expect_weights("final/");
}

INSTANTIATE_TEST_SUITE_P(, RAdapterGolden, ::testing::ValuesIn(compute_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace clip_lora::testing
