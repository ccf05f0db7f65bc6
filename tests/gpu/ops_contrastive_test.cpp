#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/contrastive.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

// Logits are up to 100 cosines, whose rounding in float32 the softmax passes on; lower precision rounds the
// result once.
const std::vector<std::pair<at::ScalarType, double>> kContrastiveTolerances = {
    {at::kFloat, 2e-5}, {at::kHalf, 5e-4}, {at::kBFloat16, 3e-3}};

TEST(ContrastiveLossOnCuda, EqualsTheSameOnACpu) {
  CLIP_LORA_NEEDS_GPU();
  for (const std::int64_t pairs : {2, 33, 512}) {
    for (const auto& labels : {at::randint(std::max<std::int64_t>(pairs / 3, 2), {pairs}), at::Tensor()}) {
      for (const auto& [type, tolerance] : kContrastiveTolerances) {
        SCOPED_TRACE(::testing::Message() << type << " B " << pairs << (labels.defined() ? " labelled" : ""));
        const auto images = at::randn({pairs, 512}).to(type), texts = at::randn({pairs, 512}).to(type);
        ops::ContrastiveOptions options{100.0, 0.05, 0.02, at::full({1}, 256.0F)};
        const auto expected =
            ops::contrastive_loss(images.to(at::kFloat), texts.to(at::kFloat), labels, options, true, true);
        options.loss_scale = options.loss_scale.cuda();
        const auto actual = ops::contrastive_loss(
            images.cuda(), texts.cuda(), labels.defined() ? labels.cuda() : labels, options, true, true);
        EXPECT_EQ(actual.loss.scalar_type(), at::kFloat);
        EXPECT_EQ(actual.d_image_features.scalar_type(), type);
        EXPECT_TRUE(close(actual.loss, expected.loss, 1e-5));
        EXPECT_TRUE(close_in_norm(actual.d_image_features, expected.d_image_features, tolerance));
        EXPECT_TRUE(close_in_norm(actual.d_text_features, expected.d_text_features, tolerance));
      }
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
