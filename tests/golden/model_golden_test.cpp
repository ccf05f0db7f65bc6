#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/elementwise.hpp"
#include "golden/compute_cases.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"

namespace clip_lora::testing {
namespace {

using ModelGolden = GoldenTest;

TEST_P(ModelGolden, ForwardReproducesTheReference) {
  const at::NoGradGuard no_grad;
  const auto golden = golden_tensors("tiny_forward.safetensors");
  auto clip = tiny_clip();
  const auto image_features = clip->encode_image(on_device(golden.at("images")));
  const auto text_features = clip->encode_text(tiny_prompts());
  EXPECT_EQ(image_features.scalar_type(), GetParam().dtype);
  EXPECT_TRUE(matches(image_features, golden.at("image_features"), kHalfFeatures)) << "image features";
  EXPECT_TRUE(matches(text_features, golden.at("text_features"), kHalfFeatures)) << "text features";

  const auto cosine = ops::l2_normalise(image_features).matmul(ops::l2_normalise(text_features).t());
  const auto logits = clip->logit_scale.to(at::kFloat).exp() * cosine;
  EXPECT_TRUE(matches(logits, golden.at("logits_per_image"), kHalfFeatures)) << "logits";
}

INSTANTIATE_TEST_SUITE_P(, ModelGolden, ::testing::ValuesIn(compute_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace clip_lora::testing
