#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/ops/classification.hpp"
#include "support/close.hpp"
#include "support/feature_loss.hpp"

namespace clip_lora::testing {
namespace {

constexpr std::int64_t kImages = 6;
constexpr std::int64_t kClasses = 5;
constexpr std::int64_t kFeatures = 24;

/// The loss as its definition reads, differentiable.
at::Tensor plain_loss(const at::Tensor& images, const at::Tensor& texts, const at::Tensor& labels,
                      const ops::ClassificationOptions& options) {
  at::Tensor classes = unit(texts).view({-1, options.prompts_per_class, texts.size(1)}).mean(1);
  const auto logits = options.logit_scale * unit(images).matmul(unit(classes).t());
  const auto& weights = options.class_weights;
  return at::cross_entropy_loss(
      logits, labels, weights.defined() ? std::optional(weights.to(images.scalar_type())) : std::nullopt);
}

struct Inputs {
  at::Tensor images, texts, labels;
};

Inputs random_inputs(std::int64_t prompts_per_class = 1) {
  return {at::randn({kImages, kFeatures}, at::kDouble) * 3.0,
          at::randn({kClasses * prompts_per_class, kFeatures}, at::kDouble) * 0.2,
          at::randint(kClasses, {kImages})};
}

/// Every option's combination that differs.
std::vector<ops::ClassificationOptions> all_options() {
  std::vector<ops::ClassificationOptions> all;
  for (const std::int64_t per_class : {1, 3}) {
    for (const bool weighted : {false, true}) {
      ops::ClassificationOptions options;
      options.logit_scale = weighted ? 14.3 : 100.0;
      options.prompts_per_class = per_class;
      if (weighted) options.class_weights = torch::tensor({0.5F, 2.0F, 0.0F, 1.0F, 0.25F});
      all.push_back(options);
    }
  }
  return all;
}

TEST(ClassificationLoss, AndItsGradientsEqualAutogradOfTheDefinition) {
  for (const auto& options : all_options()) {
    auto [images, texts, labels] = random_inputs(options.prompts_per_class);
    labels[0] = 1;  // a class that has a weight
    const auto expected_loss = plain_loss(images.requires_grad_(), texts.requires_grad_(), labels, options);
    const auto expected = torch::autograd::grad({expected_loss}, {images, texts});
    for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 2e-5}}) {
      const auto actual = ops::classification_loss(images.detach().to(type), texts.detach().to(type), labels,
                                                   options, true, true);
      EXPECT_TRUE(close(actual.loss, expected_loss, tolerance));
      EXPECT_TRUE(close(actual.d_image_features, expected[0], tolerance));
      EXPECT_TRUE(close(actual.d_text_features, expected[1], tolerance));
    }
  }
}

TEST(ClassificationLoss, LossScaleMultipliesTheGradientsOnly) {
  const auto inputs = random_inputs();
  expect_loss_scale_on_the_gradients_only<ops::ClassificationOptions>([&](const auto& options) {
    return ops::classification_loss(inputs.images, inputs.texts, inputs.labels, options, true, true);
  });
}

TEST(ClassificationLoss, GivesTheGradientsThatAreAskedForInTheFeaturesType) {
  const auto inputs = random_inputs();
  const auto images = inputs.images.to(at::kHalf), texts = inputs.texts.to(at::kHalf);
  expect_the_gradients_that_are_asked_for([&](bool of_images, bool of_texts) {
    return ops::classification_loss(images, texts, inputs.labels, {}, of_images, of_texts);
  });
}

TEST(ClassificationLoss, IsNotANumberWhereNoImageHasAWeight) {
  const auto [images, texts, labels] = random_inputs();
  ops::ClassificationOptions options;
  options.class_weights = at::zeros({kClasses});
  const auto result = ops::classification_loss(images, texts, labels, options, true, true);
  EXPECT_TRUE(std::isnan(result.loss.item<double>()));
  EXPECT_TRUE(std::isnan(plain_loss(images, texts, labels, options).item<double>()));
  EXPECT_TRUE(result.d_image_features.isnan().all().item<bool>());
}

TEST(ClassificationLoss, SaysWhatDoesNotFit) {
  const auto [images, texts, labels] = random_inputs();
  ops::ClassificationOptions options;
  options.prompts_per_class = 2;
  EXPECT_THROW(ops::classification_loss(images, texts, labels, options, true, true), c10::Error);
  EXPECT_THROW(ops::classification_loss(images, texts.narrow(1, 0, 8), labels, {}, true, true), c10::Error);
  EXPECT_THROW(ops::classification_loss(images, texts, labels.narrow(0, 0, 2), {}, true, true), c10::Error);
}

}  // namespace
}  // namespace clip_lora::testing
