#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "clip_lora/ops/adamw.hpp"
#include "support/amp_adamw.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

ops::AdamWOptions some_options() {
  ops::AdamWOptions options;
  options.learning_rate = 1e-2;
  options.weight_decay = 0.1;
  options.total_iterations = 25;
  return options;
}

std::vector<double> values(const at::Tensor& counters) {
  return {counters.data_ptr<double>(), counters.data_ptr<double>() + counters.numel()};
}

TEST(AdamWStep, FollowsThePapersFormulaInFloat64) {
  const auto options = some_options();
  const auto state = fresh_adamw_state(at::randn({101}), 1.0);
  auto parameters = state.parameters.to(at::kDouble), m = at::zeros_like(parameters),
       v = at::zeros_like(parameters);
  for (int t = 0; t < 25; ++t) {
    state.gradients.normal_();
    const auto g = state.gradients.to(at::kDouble);
    const double rate = 1e-6 + (1e-2 - 1e-6) * (1.0 + std::cos(M_PI * t / 25.0)) / 2.0;
    m = options.beta1 * m + (1.0 - options.beta1) * g;
    v = options.beta2 * v + (1.0 - options.beta2) * g * g;
    const auto m_hat = m / (1.0 - std::pow(options.beta1, t + 1)),
               v_hat = v / (1.0 - std::pow(options.beta2, t + 1));
    parameters =
        parameters - rate * (m_hat / (v_hat.sqrt() + options.epsilon) + options.weight_decay * parameters);
    ops::adamw_step(state, options, {});
    EXPECT_TRUE(close(state.parameters, parameters, 3e-6)) << t;  // some ulps of float32 for each update
  }
  EXPECT_EQ(values(state.counters), (std::vector{25.0, 25.0, 1.0, 25.0}));
}

TEST(AdamWStep, TakesTwentyStepsAsPyTorchWithAScaler) {
  const auto options = some_options();
  ops::LossScaling scaling;
  scaling.growth_interval = 4;
  const auto initial = at::randn({57});
  const auto state = fresh_adamw_state(initial, 1024.0);
  AmpAdamW expected(initial, options, scaling, 1024.0);
  for (int t = 0; t < 20; ++t) {
    auto gradients = at::randn({57}) * 1024.0;
    if (t == 0 || t == 10) gradients[t] = t == 0 ? std::nan("") : -kInfinity;
    state.gradients.copy_(gradients);
    ops::adamw_step(state, options, scaling);
    expected.step(gradients);
    EXPECT_TRUE(identical(state.parameters, expected.parameters)) << t;
    EXPECT_TRUE(identical(state.first_moments, expected.first_moments)) << t;
    EXPECT_TRUE(identical(state.second_moments, expected.second_moments)) << t;
    EXPECT_EQ(values(state.counters),
              (std::vector<double>{t + 1.0, expected.updates.item<double>(), expected.scale.item<double>(),
                                   expected.growth_tracker.item<double>()}))
        << t;
  }
}

TEST(AdamWStep, SkipsNonFiniteGradientsAtAConstantScaleToo) {
  const auto state = fresh_adamw_state(at::ones({3}), 1.0);
  state.gradients.fill_(1.0);
  state.gradients[1] = kInfinity;
  ops::adamw_step(state, some_options(), ops::kConstantLossScale);
  EXPECT_TRUE(identical(state.parameters, at::ones({3})));
  EXPECT_EQ(values(state.counters), (std::vector{1.0, 0.0, 1.0, 0.0}));
}

TEST(AdamWStep, NeverScalesBeyondFloat32) {
  ops::LossScaling scaling;
  scaling.growth_interval = 1;
  const auto state = fresh_adamw_state(at::ones({3}), std::ldexp(1.0, 127));
  state.gradients.fill_(1.0);
  ops::adamw_step(state, some_options(), scaling);
  EXPECT_EQ(state.counters[2].item<double>(), std::ldexp(1.0, 127));
}

TEST(AdamWStep, ShortensGradientsAndKeepsAveragesAsPyTorch) {
  constexpr std::int64_t kCount = 70001;  // more than is summed at once
  auto options = some_options();
  options.average_decay = 0.9;
  for (const bool scaled : {false, true}) {
    const auto scaling = scaled ? ops::LossScaling() : ops::kConstantLossScale;
    const double scale = scaled ? 1024.0 : 1.0;
    // Random gradients are as long as the root of their count.
    for (const double largest : {1.0, 0.9999 * std::sqrt(kCount), 2.0 * std::sqrt(kCount)}) {
      options.largest_gradient_norm = largest;
      const auto initial = at::randn({kCount});
      auto state = fresh_adamw_state(initial, scale);
      state.averages = initial.clone();
      AmpAdamW expected(initial, options, scaling, scale);
      for (int t = 0; t < 8; ++t) {
        auto gradients = at::randn({kCount}) * scale;
        if (scaled && t == 3) gradients[7] = kInfinity;
        state.gradients.copy_(gradients);
        const auto averages_before = state.averages.clone();
        ops::adamw_step(state, options, scaling);
        expected.step(gradients);
        EXPECT_EQ(identical(state.averages, averages_before), scaled && t == 3) << t;
      }
      SCOPED_TRACE(::testing::Message() << largest << (scaled ? " scaled" : ""));
      // Norms that are summed in another order differ by some ulps of float32, and so do sums with a factor.
      EXPECT_TRUE(close(state.first_moments, expected.first_moments, 1e-6));
      EXPECT_TRUE(close(state.second_moments, expected.second_moments, 1e-6));
      EXPECT_TRUE(close(state.parameters, expected.parameters, 1e-6));
      EXPECT_TRUE(close(state.averages, expected.averages, 1e-6));
    }
  }
}

TEST(AdamWStep, LeavesGradientsAloneThatAreShortEnough) {
  auto options = some_options();
  const auto initial = at::randn({1001}), gradients = at::randn({1001});
  const auto plain = fresh_adamw_state(initial, 1.0), limited = fresh_adamw_state(initial, 1.0);
  plain.gradients.copy_(gradients);
  limited.gradients.copy_(gradients);
  ops::adamw_step(plain, options, {});
  options.largest_gradient_norm = 100.0;
  ops::adamw_step(limited, options, {});
  EXPECT_TRUE(identical(limited.parameters, plain.parameters));
}

TEST(AdamWStep, WarmsUpBeforeTheCosine) {
  ops::AdamWOptions options;
  options.learning_rate = 8e-3;
  options.final_learning_rate = 2e-3;
  options.warmup_iterations = 4;
  options.total_iterations = 10;
  // PyTorch 2.11: SequentialLR of LinearLR(start_factor=1/4, total_iters=3) for 4 iterations, then
  // CosineAnnealingLR(T_max=6, eta_min=2e-3).
  const std::vector<double> expected = {
      0.002, 0.004, 0.006, 0.008, 0.008, 0.007598076211353316, 0.0065, 0.005, 0.0035, 0.002401923788646684};
  const auto state = fresh_adamw_state(at::zeros({1}), 1.0);
  for (std::size_t t = 0; t < expected.size(); ++t) {
    const auto iteration = static_cast<std::int64_t>(t);
    EXPECT_NEAR(ops::learning_rate_at(options, iteration), expected[t], 1e-15) << t;
    // AdamW's updates with gradients that never change are as long as the learning rate.
    state.parameters.fill_(0.0);
    state.gradients.fill_(1.0);
    ops::adamw_step(state, options, {});
    EXPECT_NEAR(-state.parameters.item<double>(), expected[t], 1e-8) << t;
  }
}

TEST(AdamWStep, MayEndBeforeTheWarmUpDoes) {
  ops::AdamWOptions options;
  options.learning_rate = 1.0;
  options.warmup_iterations = 500;
  options.total_iterations = 303;
  EXPECT_DOUBLE_EQ(ops::learning_rate_at(options, 302), 303.0 / 500.0);
  options.total_iterations = 500;
  EXPECT_DOUBLE_EQ(ops::learning_rate_at(options, 500), 1.0);
}

TEST(AdamWStep, SaysWhichBufferDoesNotFit) {
  auto state = fresh_adamw_state(at::ones({3}), 1.0);
  state.gradients = at::ones({4});
  EXPECT_THROW(ops::adamw_step(state, {}, {}), c10::Error);
  state.gradients = at::ones({3}, at::kHalf);
  EXPECT_THROW(ops::adamw_step(state, {}, {}), c10::Error);
  state.gradients = at::ones({3});
  state.averages = at::ones({2});
  EXPECT_THROW(ops::adamw_step(state, {}, {}), c10::Error);
}

TEST(UpColumnsWriter, WritesEachScaledBWhereItsColumnsAre) {
  const auto parameters = at::randn({7 + 6 * 2 + 4 * 3});
  auto wide = at::full({6, 10}, 9.0), other = at::full({4, 5}, 9.0, at::kFloat);
  const ops::UpColumnsWriter writer({{7, 0.5, wide.narrow(1, 8, 2)}, {19, -2.0, other.narrow(1, 0, 3)}});
  writer.write(parameters);
  EXPECT_TRUE(identical(wide.narrow(1, 8, 2), 0.5F * parameters.narrow(0, 7, 12).view({6, 2})));
  EXPECT_TRUE(identical(other.narrow(1, 0, 3), -2.0F * parameters.narrow(0, 19, 12).view({4, 3})));
  EXPECT_TRUE(wide.narrow(1, 0, 8).eq(9.0).all().item<bool>());
  EXPECT_TRUE(other.narrow(1, 3, 2).eq(9.0).all().item<bool>());
}

TEST(UpColumnsWriter, RoundsOnceAndMayBeEmpty) {
  const auto parameters = at::randn({12});
  const auto columns = at::empty({6, 2}, at::kHalf);
  ops::UpColumnsWriter({{0, 1.0 / 3.0, columns}}).write(parameters);
  EXPECT_TRUE(identical(columns, (parameters * (1.0 / 3.0)).view({6, 2}).to(at::kHalf)));
  ops::UpColumnsWriter().write(parameters);
}

}  // namespace
}  // namespace clip_lora::testing
