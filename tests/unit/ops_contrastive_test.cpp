#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/ops/contrastive.hpp"
#include "support/close.hpp"
#include "support/feature_loss.hpp"

namespace clip_lora::testing {
namespace {

constexpr std::int64_t kEmbedding = 24;

/// One direction of the loss, pair by pair as the paper writes it; differentiable. cosines: [B, B].
at::Tensor plain_direction(const at::Tensor& cosines, const at::Tensor& labels,
                           const ops::ContrastiveOptions& options) {
  const auto pairs = cosines.size(0);
  at::Tensor loss = at::zeros({}, cosines.options());
  for (std::int64_t i = 0; i < pairs; ++i) {
    const auto positives = labels == labels[i];
    const auto positive_count = positives.sum().item<double>();
    const double others = static_cast<double>(pairs) - positive_count;
    const auto log_probabilities = at::log_softmax(
        options.logit_scale * (cosines[i] + options.margin * (~positives).to(at::kDouble)), 0);
    const auto of_positives = log_probabilities.index({positives}).sum();
    const auto of_others = log_probabilities.index({~positives}).sum();
    loss = loss - (1.0 - options.label_smoothing) / positive_count * of_positives;
    if (others > 0.0) loss = loss - options.label_smoothing / others * of_others;
  }
  return loss / static_cast<double>(pairs);
}

at::Tensor plain_loss(const at::Tensor& images, const at::Tensor& texts, const at::Tensor& labels,
                      const ops::ContrastiveOptions& options) {
  const auto cosines = unit(images).matmul(unit(texts).t());
  if (labels.defined()) {
    return (plain_direction(cosines, labels, options) + plain_direction(cosines.t(), labels, options)) / 2.0;
  }
  const auto logits = options.logit_scale * cosines;
  const auto own = at::arange(cosines.size(0));
  const auto smoothed = [&](const at::Tensor& x) {
    return at::cross_entropy_loss(x, own, {}, at::Reduction::Mean, -100, options.label_smoothing);
  };
  return (smoothed(logits) + smoothed(logits.t())) / 2.0;
}

struct Pairs {
  at::Tensor images, texts;
};

Pairs random_pairs(std::int64_t pairs) {
  return {at::randn({pairs, kEmbedding}, at::kDouble) * 3.0,
          at::randn({pairs, kEmbedding}, at::kDouble) * 0.2};
}

/// Some of one label, all of one, all different, and none.
std::vector<at::Tensor> all_labels(std::int64_t pairs) {
  return {at::randint(std::max<std::int64_t>(pairs / 2, 2), {pairs}), at::full({pairs}, 3, at::kLong),
          at::randperm(pairs), at::Tensor()};
}

std::vector<ops::ContrastiveOptions> all_losses() {
  return {{100.0, 0.05, 0.02}, {100.0, 0.1, 0.0}, {14.3, 0.0, 0.1}, {100.0}};
}

TEST(ContrastiveLoss, AndItsGradientsEqualAutogradOfTheDefinition) {
  for (const std::int64_t pairs : {1, 2, 9}) {
    for (const auto& labels : all_labels(pairs)) {
      for (const auto& options : all_losses()) {
        auto [images, texts] = random_pairs(pairs);
        const auto expected_loss =
            plain_loss(images.requires_grad_(), texts.requires_grad_(), labels, options);
        const auto expected = torch::autograd::grad({expected_loss}, {images, texts});
        for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 2e-5}}) {
          const auto actual = ops::contrastive_loss(images.detach().to(type), texts.detach().to(type), labels,
                                                    options, true, true);
          SCOPED_TRACE(::testing::Message() << pairs << " pairs, " << labels << ", scale "
                                            << options.logit_scale << " margin " << options.margin);
          // Where loss or gradients vanish only the rounding of larger terms is left.
          EXPECT_NEAR(actual.loss.item<double>(), expected_loss.item<double>(),
                      tolerance * std::max(1.0, expected_loss.item<double>()));
          EXPECT_TRUE(at::allclose(actual.d_image_features.to(at::kDouble), expected[0], 0.0,
                                   tolerance * std::max(1e-3, expected[0].abs().max().item<double>())));
          EXPECT_TRUE(at::allclose(actual.d_text_features.to(at::kDouble), expected[1], 0.0,
                                   tolerance * std::max(1e-3, expected[1].abs().max().item<double>())));
        }
      }
    }
  }
}

TEST(ContrastiveLoss, OfDifferentLabelsWithoutOptionsIsThatOfNone) {
  const auto [images, texts] = random_pairs(7);
  const auto labelled = ops::contrastive_loss(images, texts, at::randperm(7), {}, true, true);
  const auto unlabelled = ops::contrastive_loss(images, texts, {}, {}, true, true);
  EXPECT_TRUE(close(labelled.loss, unlabelled.loss, 1e-12));
  EXPECT_TRUE(close(labelled.d_image_features, unlabelled.d_image_features, 1e-12));
}

TEST(ContrastiveLoss, WithoutLabelsHasNoMargin) {
  const auto [images, texts] = random_pairs(7);
  const auto plain = ops::contrastive_loss(images, texts, {}, {100.0, 0.0, 0.1}, false, false);
  const auto with_margin = ops::contrastive_loss(images, texts, {}, {100.0, 0.5, 0.1}, false, false);
  EXPECT_TRUE(identical(with_margin.loss, plain.loss));
}

TEST(ContrastiveLoss, LossScaleMultipliesTheGradientsOnly) {
  const auto inputs = random_pairs(6);
  const auto labels = at::randint(3, {6});
  expect_loss_scale_on_the_gradients_only<ops::ContrastiveOptions>([&](const auto& options) {
    return ops::contrastive_loss(inputs.images, inputs.texts, labels, options, true, true);
  });
}

TEST(ContrastiveLoss, StaysFiniteWhereProbabilitiesVanish) {
  // Pairs that point away from each other, cosines of -1 and 1 times 100: e^-200 is zero in float32.
  const auto images = at::eye(8, kEmbedding) * 6e4, texts = -images;
  const auto result = ops::contrastive_loss(images.to(at::kHalf), texts.to(at::kHalf), at::arange(8),
                                            {100.0, 1.0, 0.02}, true, true);
  // Each row: own logit -100, the others 100; log-probabilities -200 - log 7 and -log 7.
  EXPECT_NEAR(result.loss.item<double>(), 0.98 * 200.0 + std::log(7.0), 1e-4);
  EXPECT_TRUE(result.d_image_features.isfinite().all().item<bool>());
  const auto tiny = ops::contrastive_loss(images * 1e-30, texts * 1e-30, at::arange(8), {}, true, true);
  EXPECT_TRUE(tiny.d_text_features.isfinite().all().item<bool>());
}

TEST(ContrastiveLoss, GivesTheGradientsThatAreAskedForInTheFeaturesType) {
  const auto inputs = random_pairs(6);
  const auto images = inputs.images.to(at::kHalf), texts = inputs.texts.to(at::kHalf);
  expect_the_gradients_that_are_asked_for([&](bool of_images, bool of_texts) {
    return ops::contrastive_loss(images, texts, at::arange(6), {}, of_images, of_texts);
  });
}

TEST(ContrastiveLoss, SaysWhatDoesNotFit) {
  const auto [images, texts] = random_pairs(6);
  EXPECT_THROW(ops::contrastive_loss(images, texts.narrow(0, 0, 5), {}, {}, true, true), c10::Error);
  EXPECT_THROW(ops::contrastive_loss(images, texts.to(at::kFloat), {}, {}, true, true), c10::Error);
  EXPECT_THROW(ops::contrastive_loss(images, texts, at::arange(5), {}, true, true), c10::Error);
  EXPECT_THROW(ops::contrastive_loss(images, texts, at::ones({6}), {}, true, true), c10::Error);
}

}  // namespace
}  // namespace clip_lora::testing
