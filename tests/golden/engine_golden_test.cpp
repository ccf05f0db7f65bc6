#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/engine/training_step.hpp"
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
  void expect_final(const lora::LoraAdapter& adapter, const io::StateDict& golden) const {
    for (const auto& [name, expected] : below(golden, "final/")) {
      EXPECT_TRUE(matches(adapter.state_dict().at(name), expected, name.ends_with("_A") ? kHalfA : kHalfB))
          << name;
    }
  }
};

TEST_P(EngineGolden, TwentyUpdatesReproduceTheReference) {
  const auto golden = golden_tensors("trajectory.safetensors");
  const auto images = on_device(golden.at("images_f16"));  // [T, B, 3, R, R]
  const auto labels = on_device(golden.at("targets"));     // [T, B]
  auto clip = tiny_clip();
  const lora::LoraAdapter adapter(clip, without_dropout());
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

INSTANTIATE_TEST_SUITE_P(, EngineGolden, ::testing::ValuesIn(compute_cases()),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace clip_lora::testing
