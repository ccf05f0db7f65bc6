#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/contrastive.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"

namespace clip_lora::testing {
namespace {

struct Case {
  double label_smoothing, margin, logit_scale;
  bool labelled;
};
constexpr Case kCases[] = {{0.02, 0.05, 100.0, true},
                           {0.0, 0.1, 100.0, true},
                           {0.0, 0.0, 100.0, true},
                           {0.1, 0.05, 14.2857, true},
                           {0.0, 0.05, 100.0, false}};

/// The gradient in x of `gradient` in x / |x|.
at::Tensor through_normalisation(const at::Tensor& x, const at::Tensor& gradient) {
  const auto leaf = x.detach().clone().requires_grad_();
  return torch::autograd::grad({leaf / leaf.norm(2, -1, true)}, {leaf}, {gradient})[0];
}

TEST(ContrastiveGolden, LossAndGradientsAreTheReleases) {
  CLIP_LORA_NEEDS_TEST_DATA();
  const auto tensors = golden_tensors("mpm_nce.safetensors");
  for (std::size_t i = 0; i < std::size(kCases); ++i) {
    const auto& [label_smoothing, margin, logit_scale, labelled] = kCases[i];
    const auto golden = below(tensors, "case" + std::to_string(i) + "/");
    ASSERT_EQ(golden.size(), 3U) << i;
    // Features of several lengths, where the release was given the normalised ones.
    const auto lengths = at::linspace(0.5, 8.0, 16).unsqueeze(1);
    const auto images = tensors.at("image_features") * lengths,
               texts = tensors.at("text_features") * lengths.flip(0);
    const auto labels = labelled ? tensors.at("labels") : at::Tensor();
    const auto actual =
        ops::contrastive_loss(images, texts, labels, {logit_scale, margin, label_smoothing}, true, true);
    SCOPED_TRACE(::testing::Message() << "case " << i);
    // Both are sums of float32 at a logit scale of 100, ours in float64.
    EXPECT_TRUE(close(actual.loss.view({1}), golden.at("loss"), 1e-5));
    EXPECT_TRUE(close(actual.d_image_features, through_normalisation(images, golden.at("grad_image")), 1e-5));
    EXPECT_TRUE(close(actual.d_text_features, through_normalisation(texts, golden.at("grad_text")), 1e-5));
  }
}

}  // namespace
}  // namespace clip_lora::testing
