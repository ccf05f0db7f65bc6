#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/ops/elementwise.hpp"
#include "golden/compute_cases.hpp"
#include "support/golden.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

// Tolerances of the relative norm in float16 after 20 updates; B starts at 0 and is all rounding and signal.
constexpr double kHalfLoss = 1e-2;
constexpr double kHalfA = 5e-3;
constexpr double kHalfB = 5e-2;

class EngineGolden : public GoldenTest {
 protected:
  void expect_final(const lora::Adapter& adapter, const io::StateDict& golden) const {
    for (const auto& [name, expected] : below(golden, "final/")) {
      EXPECT_TRUE(matches(adapter.state_dict().at(name), expected, name.ends_with("_A") ? kHalfA : kHalfB))
          << name;
    }
  }
};

TEST_P(EngineGolden, TwentyUpdatesReproduceTheReference) {
  if (in_half())
    GTEST_SKIP() << "the loss scale's first overflows skip updates: see the test with a settled scale";
  const auto golden = golden_tensors("trajectory.safetensors");
  const auto images = on_device(golden.at("images_f16"));  // [T, B, 3, R, R]
  const auto labels = on_device(golden.at("targets"));     // [T, B]
  auto clip = tiny_clip();
  const lora::Adapter adapter(clip, without_dropout());
  assign(adapter, below(golden, "init/"));
  engine::TrainingStep step(clip, adapter, tiny_prompts(), {.total_iterations = images.size(0)});

  for (std::int64_t t = 0; t < images.size(0); ++t) {
    // A number of doubles computed in another order: a few ulps.
    EXPECT_NEAR(step.learning_rate(), golden.at("lrs")[t].item<double>(), 1e-15) << "iteration " << t;
    const auto loss = step.run(images[t], labels[t]);
    EXPECT_TRUE(matches(loss, golden.at("losses")[t], kHalfLoss)) << "loss of iteration " << t;
  }
  EXPECT_EQ(step.iteration(), images.size(0));
  expect_final(adapter, golden);
}

TEST_P(EngineGolden, TwentyUpdatesWithASettledLossScaleReproduceTheReference) {
  const auto golden = golden_tensors("trajectory.safetensors");
  const auto images = on_device(golden.at("images_f16"));
  const auto labels = on_device(golden.at("targets"));
  auto clip = tiny_clip();
  const lora::Adapter adapter(clip, without_dropout());
  assign(adapter, below(golden, "init/"));
  adapter.attach(clip);
  engine::AdamW optimiser(adapter.parameters(), {});
  engine::LossScaler scaler(GetParam().device);
  const auto overflow = at::ones({1}, at::TensorOptions(GetParam().device).dtype(at::kFloat));
  while (scaler.current_scale() > 1024.0) scaler.update(overflow);

  for (std::int64_t t = 0; t < images.size(0); ++t) {
    optimiser.zero_gradients();
    const auto logits = engine::classification_logits(ops::l2_normalise(clip->encode_image(images[t])),
                                                      ops::l2_normalise(clip->encode_text(tiny_prompts())));
    const auto loss = at::cross_entropy_loss(logits, labels[t]);
    EXPECT_TRUE(matches(loss, golden.at("losses")[t], kHalfLoss)) << "loss of iteration " << t;
    scaler.scale(loss).backward();
    std::vector<at::Tensor> gradients;
    for (const auto& parameter : optimiser.parameters()) gradients.push_back(parameter.grad());
    const auto found_inf = scaler.unscale(gradients);
    ASSERT_EQ(found_inf.item<double>(), 0.0) << "iteration " << t;
    scaler.update(found_inf);
    optimiser.step(engine::cosine_learning_rate({}, t, images.size(0)), found_inf);
  }
  expect_final(adapter, golden);
}

INSTANTIATE_TEST_SUITE_P(, EngineGolden, ::testing::ValuesIn(compute_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace clip_lora::testing
