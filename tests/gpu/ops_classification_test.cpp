#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/ops/classification.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

// Logits are 100 cosines, whose rounding in float32 the softmax passes on; lower precision rounds the result
// once.
const std::vector<std::pair<at::ScalarType, double>> kTolerances = {
    {at::kFloat, 1e-5}, {at::kHalf, 5e-4}, {at::kBFloat16, 3e-3}};

struct Size {
  std::int64_t images, classes, width, prompts_per_class = 1;
};

void expect_equal(const Size& size, at::ScalarType type, double tolerance, bool weighted, double scale) {
  const auto images = (at::randn({size.images, size.width}) * 0.4).to(type);
  const auto texts = at::randn({size.classes * size.prompts_per_class, size.width}).to(type);
  const auto labels = at::randint(size.classes, {size.images});
  ops::ClassificationOptions options;
  options.logit_scale =
      size.width < 512 ? 10.0 : 100.0;  // an image whose class is certain has only rounding left
  options.prompts_per_class = size.prompts_per_class;
  if (weighted) options.class_weights = at::rand({size.classes}) + 0.1;
  options.loss_scale = at::full({1}, scale);
  const auto expected =
      ops::classification_loss(images.to(at::kFloat), texts.to(at::kFloat), labels, options, true, true);
  if (weighted) options.class_weights = options.class_weights.cuda();
  options.loss_scale = options.loss_scale.cuda();
  const auto actual =
      ops::classification_loss(images.cuda(), texts.cuda(), labels.cuda(), options, true, true);
  EXPECT_EQ(actual.loss.dim(), 0);
  EXPECT_EQ(actual.d_text_features.scalar_type(), type);
  EXPECT_TRUE(close(actual.loss, expected.loss, 1e-5));
  EXPECT_TRUE(close_in_norm(actual.d_image_features, expected.d_image_features, tolerance));
  EXPECT_TRUE(close_in_norm(actual.d_text_features, expected.d_text_features, tolerance));
}

TEST(ClassificationLossOnCuda, EqualsItsDefinition) {
  CLIP_LORA_NEEDS_GPU();
  const std::vector<Size> sizes = {{1, 7, 64},     {32, 10, 512}, {31, 101, 640},   {33, 1000, 768},
                                   {7, 47, 1024},  {70, 3, 1280}, {32, 20, 512, 3},  // several prompts
                                   {9, 12, 20},       // a width that is no multiple of 8
                                   {300, 4000, 64}};  // more logits than the kernels take
  for (const auto& size : sizes) {
    for (const auto& [type, tolerance] : kTolerances) {
      SCOPED_TRACE(::testing::Message()
                   << type << " B " << size.images << " C " << size.classes << " E " << size.width);
      expect_equal(size, type, tolerance, /*weighted=*/false, 1024.0);
      expect_equal(size, type, tolerance, /*weighted=*/true, 1.0);
    }
  }
}

TEST(ClassificationLossOnCuda, GivesTheGradientsThatAreAskedFor) {
  CLIP_LORA_NEEDS_GPU();
  const auto images = at::randn({8, 64}, at::kCUDA), texts = at::randn({10, 64}, at::kCUDA);
  const auto labels = at::arange(8, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const auto both = ops::classification_loss(images, texts, labels, {}, true, true);
  for (const bool of_images : {false, true}) {
    for (const bool of_texts : {false, true}) {
      const auto result = ops::classification_loss(images, texts, labels, {}, of_images, of_texts);
      EXPECT_TRUE(identical(result.loss, both.loss)) << "the same every time";
      EXPECT_EQ(result.d_image_features.defined(), of_images);
      EXPECT_EQ(result.d_text_features.defined(), of_texts);
      if (of_images) {
        EXPECT_TRUE(identical(result.d_image_features, both.d_image_features));
      }
      if (of_texts) {
        EXPECT_TRUE(identical(result.d_text_features, both.d_text_features));
      }
    }
  }
}

TEST(ClassificationLossOnCuda, IsNotANumberWhereNoImageHasAWeight) {
  CLIP_LORA_NEEDS_GPU();
  ops::ClassificationOptions options;
  options.class_weights = at::zeros({10}, at::kCUDA);
  const auto labels = at::zeros({8}, at::TensorOptions(at::kCUDA).dtype(at::kLong));
  const auto result = ops::classification_loss(at::randn({8, 64}, at::kCUDA), at::randn({10, 64}, at::kCUDA),
                                               labels, options, true, true);
  EXPECT_TRUE(std::isnan(result.loss.item<double>()));
  EXPECT_TRUE(result.d_image_features.isnan().all().item<bool>());
}

}  // namespace
}  // namespace clip_lora::testing
