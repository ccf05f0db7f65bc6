#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "support/close.hpp"
#include "support/golden.hpp"
#include "support/oracle.hpp"

namespace clip_lora::testing {
namespace {

// The goldens are float32: ten times what that costs them in a model this small.
constexpr double kTolerance = 2e-5;

class OracleGolden : public ::testing::Test {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_TEST_DATA(); }

  static OracleModel tiny(const io::StateDict& lora, double scaling) {
    return {golden_tensors("tiny_clip.safetensors"), lora, scaling};
  }
};

TEST_F(OracleGolden, ForwardEqualsTheReference) {
  const auto golden = golden_tensors("tiny_forward.safetensors");
  const auto model = tiny({}, 0.0);
  const auto image_features = oracle_image_features(model, golden.at("images"));
  const auto text_features = oracle_text_features(model, golden.at("tokens"));
  EXPECT_TRUE(close(image_features, golden.at("image_features"), kTolerance));
  EXPECT_TRUE(close(text_features, golden.at("text_features"), kTolerance));
  const double scale = std::exp(model.weights.at("logit_scale").item<double>());
  EXPECT_TRUE(
      close(scale * oracle_cosine(image_features, text_features), golden.at("logits_per_image"), kTolerance));
}

TEST_F(OracleGolden, LossAndEveryGradientEqualTheReferenceInEachVariant) {
  const auto batch = golden_tensors("tiny_forward.safetensors");
  for (int i = 0; i < 6; ++i) {
    const auto golden = golden_tensors("lora_variant" + std::to_string(i) + ".safetensors");
    const double scaling = i == 5 ? 2.0 / std::sqrt(4.0) : 1.0 / std::sqrt(2.0);
    const auto step = oracle_gradients(tiny(below(golden, "param/"), scaling), batch.at("images"),
                                       batch.at("tokens"), batch.at("targets"));
    EXPECT_NEAR(step.loss, golden.at("loss").item<double>(), kTolerance * step.loss) << "variant " << i;
    EXPECT_TRUE(close(step.cosine, golden.at("cosine"), kTolerance)) << "variant " << i;
    EXPECT_TRUE(close(step.cosine, golden.at("cosine_eval_merged"), kTolerance)) << "variant " << i;
    for (const auto& [name, gradient] : below(golden, "grad/")) {
      EXPECT_TRUE(close(step.gradients.at(name), gradient, kTolerance)) << "variant " << i << " " << name;
    }
  }
}

TEST_F(OracleGolden, TrajectoryEqualsTheReference) {
  const auto golden = golden_tensors("trajectory.safetensors");
  const auto tokens = golden_tensors("tiny_forward.safetensors").at("tokens");
  const auto run = oracle_trajectory(tiny(below(golden, "init/"), 1.0 / std::sqrt(2.0)),
                                     golden.at("images_f16"), tokens, golden.at("targets"), {});
  EXPECT_TRUE(close(torch::tensor(run.losses, at::kDouble), golden.at("losses"), kTolerance));
  EXPECT_TRUE(close(torch::tensor(run.learning_rates, at::kDouble), golden.at("lrs"), 1e-12));
  for (const auto& [name, tensor] : below(golden, "final/")) {
    // Adam divides a gradient by its own size: rounding in the golden shows where a first gradient is nearly
    // 0.
    EXPECT_TRUE(close(run.lora.at(name), tensor, 5e-5)) << name;
  }
}

}  // namespace
}  // namespace clip_lora::testing
