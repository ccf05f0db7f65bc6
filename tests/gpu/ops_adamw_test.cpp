#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "clip_lora/ops/adamw.hpp"
#include "support/amp_adamw.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

// Both round to float32 at every operation, of which the device contracts some: an ulp or two for each of 20
// updates.
constexpr double kTolerance = 1e-6;

TEST(AdamWStepOnCuda, TakesTwentyStepsAsPyTorchWithAndWithoutAScaler) {
  CLIP_LORA_NEEDS_GPU();
  for (const std::int64_t count : {1, 6, 4099, 184320}) {
    for (const bool scaled : {false, true}) {
      ops::AdamWOptions options;
      options.learning_rate = 1e-2;
      options.total_iterations = 25;
      auto scaling = scaled ? ops::LossScaling() : ops::kConstantLossScale;
      scaling.growth_interval = 4;
      const auto initial = at::randn({count});
      const auto state = fresh_adamw_state(initial.cuda(), 1024.0);
      AmpAdamW expected(initial, options, scaling, 1024.0);
      for (int t = 0; t < 20; ++t) {
        auto gradients = at::randn({count}) * 1024.0;
        if (scaled && (t == 0 || t == 10)) gradients[count - 1] = std::numeric_limits<float>::infinity();
        state.gradients.copy_(gradients);
        ops::adamw_step(state, options, scaling);
        expected.step(gradients);
      }
      SCOPED_TRACE(::testing::Message() << count << (scaled ? " scaled" : ""));
      EXPECT_TRUE(close(state.parameters, expected.parameters, kTolerance));
      EXPECT_TRUE(close(state.first_moments, expected.first_moments, kTolerance));
      EXPECT_TRUE(close(state.second_moments, expected.second_moments, kTolerance));
      const auto counters =
          torch::tensor({20.0, expected.updates.item<double>(), expected.scale.item<double>(),
                         expected.growth_tracker.item<double>()},
                        at::kDouble);
      EXPECT_TRUE(identical(state.counters, counters)) << state.counters;
    }
  }
}

TEST(AdamWStepOnCuda, ShortensGradientsAndKeepsAveragesAsItsDefinition) {
  CLIP_LORA_NEEDS_GPU();
  for (const std::int64_t count : {1, 6, 4099, 3000001}) {
    for (const bool scaled : {false, true}) {
      // Random gradients are as long as the root of their count: shortened and not.
      for (const double largest : {1.0, 3.0 * std::sqrt(static_cast<double>(count))}) {
        ops::AdamWOptions options;
        options.learning_rate = 1e-2;
        options.total_iterations = 12;
        options.warmup_iterations = 5;
        options.largest_gradient_norm = largest;
        options.average_decay = 0.9;
        const auto scaling = scaled ? ops::LossScaling() : ops::kConstantLossScale;
        const auto initial = at::randn({count});
        auto here = fresh_adamw_state(initial, 1024.0), there = fresh_adamw_state(initial.cuda(), 1024.0);
        here.averages = initial.clone();
        there.averages = initial.cuda();
        for (int t = 0; t < 12; ++t) {
          here.gradients.normal_().mul_(scaled ? 1024.0 : 1.0);
          if (scaled && t == 3) here.gradients[count - 1] = std::numeric_limits<float>::infinity();
          there.gradients.copy_(here.gradients);
          ops::adamw_step(here, options, scaling);
          ops::adamw_step(there, options, scaling);
        }
        SCOPED_TRACE(::testing::Message()
                     << count << (scaled ? " scaled, at most " : ", at most ") << largest);
        EXPECT_TRUE(close(there.parameters, here.parameters, kTolerance));
        EXPECT_TRUE(close(there.first_moments, here.first_moments, kTolerance));
        EXPECT_TRUE(close(there.second_moments, here.second_moments, kTolerance));
        EXPECT_TRUE(close(there.averages, here.averages, kTolerance));
        EXPECT_TRUE(identical(there.counters, here.counters));
      }
    }
  }
}

TEST(AdamWStepOnCuda, ShortensToTheSameBitsEachTime) {
  CLIP_LORA_NEEDS_GPU();
  ops::AdamWOptions options;
  options.largest_gradient_norm = 1.0;
  const auto initial = at::randn({1000003}, at::kCUDA), gradients = at::randn({1000003}, at::kCUDA);
  at::Tensor first;
  for (int i = 0; i < 5; ++i) {
    const auto state = fresh_adamw_state(initial, 1.0);
    state.gradients.copy_(gradients);
    ops::adamw_step(state, options, {});
    if (!first.defined()) first = state.first_moments;
    EXPECT_TRUE(identical(state.first_moments, first));
  }
}

TEST(AdamWStepOnCuda, ASkippedUpdateTouchesNoBit) {
  CLIP_LORA_NEEDS_GPU();
  const auto initial = at::randn({1003}, at::kCUDA);
  auto state = fresh_adamw_state(initial, 1024.0);
  state.averages = at::zeros_like(initial);
  state.gradients.normal_();
  state.gradients[517] = std::numeric_limits<float>::quiet_NaN();
  ops::adamw_step(state, {}, {});
  EXPECT_TRUE(identical(state.parameters, initial));
  EXPECT_TRUE(state.first_moments.eq(0).all().item<bool>());
  EXPECT_TRUE(state.second_moments.eq(0).all().item<bool>());
  EXPECT_TRUE(state.averages.eq(0).all().item<bool>());
  EXPECT_TRUE(identical(state.counters, torch::tensor({1.0, 0.0, 512.0, 0.0}, at::kDouble)));
}

TEST(UpColumnsWriterOnCuda, WritesWhatItsDefinitionWrites) {
  CLIP_LORA_NEEDS_GPU();
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes = {{768, 2}, {33, 7}, {512, 1}, {1280, 64}};
  for (const auto type : {at::kHalf, at::kBFloat16, at::kFloat}) {
    std::int64_t count = 0;
    std::vector<ops::UpColumns> here, there;
    std::vector<at::Tensor> weights;
    for (const auto& [rows, rank] : sizes) {
      weights.push_back(at::zeros({rows, rank + 5}, type));
      weights.push_back(weights.back().cuda());
      here.push_back(
          {count, 0.1 + static_cast<double>(count), weights[weights.size() - 2].narrow(1, 3, rank)});
      there.push_back({count, here.back().scaling, weights.back().narrow(1, 3, rank)});
      count += rows * rank;
    }
    const auto parameters = at::randn({count});
    ops::UpColumnsWriter(here).write(parameters);
    ops::UpColumnsWriter(there).write(parameters.cuda());
    for (std::size_t i = 0; i < weights.size(); i += 2)
      EXPECT_TRUE(identical(weights[i + 1], weights[i])) << type;
  }
}

}  // namespace
}  // namespace clip_lora::testing
