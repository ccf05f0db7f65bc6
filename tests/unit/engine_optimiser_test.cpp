#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <limits>

#include "clip_lora/engine/optimiser.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

/// AdamW for one parameter as its paper's algorithm 2 reads, in float64.
class AdamWByDefinition {
 public:
  AdamWByDefinition(const at::Tensor& parameter, const engine::OptimiserOptions& options)
      : parameter_(parameter.detach().to(at::kDouble, false, true)),
        m_(at::zeros_like(parameter_)),
        v_(at::zeros_like(parameter_)),
        options_(options) {}

  void step(const at::Tensor& gradient, double learning_rate) {
    const auto g = gradient.to(at::kDouble);
    ++t_;
    m_ = options_.beta1 * m_ + (1 - options_.beta1) * g;
    v_ = options_.beta2 * v_ + (1 - options_.beta2) * g * g;
    const auto m_hat = m_ / (1 - std::pow(options_.beta1, t_));
    const auto v_hat = v_ / (1 - std::pow(options_.beta2, t_));
    parameter_ = parameter_ - learning_rate * (m_hat / (v_hat.sqrt() + options_.epsilon) +
                                               options_.weight_decay * parameter_);
  }
  const at::Tensor& parameter() const { return parameter_; }

 private:
  at::Tensor parameter_, m_, v_;
  engine::OptimiserOptions options_;
  int t_ = 0;
};

std::vector<at::Tensor> random_parameters() {
  return {at::randn({2, 30}).requires_grad_(), at::zeros({30, 2}).requires_grad_(),
          at::randn({7}).requires_grad_()};
}

TEST(CosineLearningRate, GoesFromTheFirstRateToTheLastOnHalfACosine) {
  const engine::OptimiserOptions options;
  EXPECT_DOUBLE_EQ(engine::cosine_learning_rate(options, 0, 100), 2e-4);
  EXPECT_DOUBLE_EQ(engine::cosine_learning_rate(options, 50, 100), (2e-4 + 1e-6) / 2);
  EXPECT_DOUBLE_EQ(engine::cosine_learning_rate(options, 100, 100), 1e-6);
  EXPECT_NEAR(engine::cosine_learning_rate(options, 25, 100), 1e-6 + (2e-4 - 1e-6) * (0.5 + std::sqrt(0.125)),
              1e-12);
  for (int i = 1; i <= 100; ++i) {
    EXPECT_LT(engine::cosine_learning_rate(options, i, 100),
              engine::cosine_learning_rate(options, i - 1, 100));
  }
}

TEST(AdamW, FollowsItsFormulaWithDecayAndChangingRates) {
  engine::OptimiserOptions options;
  options.weight_decay = 0.1;
  auto parameters = random_parameters();
  engine::AdamW optimiser(parameters, options);
  std::vector<AdamWByDefinition> expected;
  for (const auto& parameter : parameters) expected.emplace_back(parameter, options);
  for (int t = 0; t < 50; ++t) {
    const double rate = 1e-2 / (t + 1);
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].mutable_grad() = at::randn_like(parameters[i]).detach() * std::pow(10.0, i) * 1e-3;
      expected[i].step(parameters[i].grad(), rate);
    }
    optimiser.step(rate);
  }
  // 50 updates rounded to float32 each.
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_TRUE(close(parameters[i], expected[i].parameter(), 1e-5)) << "parameter " << i;
  }
}

TEST(AdamW, AStepThatIsSkippedDoesNotCount) {
  auto parameters = random_parameters();
  engine::AdamW optimiser(parameters, {});
  std::vector<AdamWByDefinition> expected;
  for (const auto& parameter : parameters) expected.emplace_back(parameter, engine::OptimiserOptions{});
  for (int t = 0; t < 6; ++t) {
    const bool skipped = t == 0 || t == 3;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      parameters[i].mutable_grad() = at::randn_like(parameters[i]).detach();
      if (skipped) {
        parameters[i].mutable_grad()[0].fill_(std::numeric_limits<float>::infinity());
      } else {
        expected[i].step(parameters[i].grad(), 1e-2);
      }
    }
    optimiser.step(1e-2, at::full({1}, skipped ? 1.0F : 0.0F));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      EXPECT_TRUE(close(parameters[i], expected[i].parameter(), 1e-6)) << "step " << t << ", parameter " << i;
    }
  }
}

TEST(AdamW, ForgetsGradientsWhenAsked) {
  auto parameters = random_parameters();
  engine::AdamW optimiser(parameters, {});
  for (auto& parameter : parameters) parameter.mutable_grad() = at::ones_like(parameter).detach();
  optimiser.zero_gradients();
  for (const auto& parameter : parameters) {
    EXPECT_TRUE(!parameter.grad().defined() || parameter.grad().eq(0).all().item<bool>());
  }
}

TEST(LossScaler, MultipliesTheLossAndDividesTheGradients) {
  const engine::LossScaler scaler(at::kCPU);
  EXPECT_EQ(scaler.current_scale(), 1024.0);
  EXPECT_EQ(scaler.scale(at::full({}, 0.5)).item<double>(), 512.0);
  const std::vector<at::Tensor> gradients = {at::full({3}, 1024.0), at::full({2, 2}, -512.0)};
  EXPECT_EQ(scaler.unscale(gradients).item<double>(), 0.0);
  EXPECT_TRUE(identical(gradients[0], at::ones({3})));
  EXPECT_TRUE(identical(gradients[1], at::full({2, 2}, -0.5)));
}

TEST(LossScaler, HalvesItsScaleAtEveryGradientThatIsNotFinite) {
  engine::LossScaler scaler(at::kCPU);
  double scale = 1024.0;
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    auto second = at::ones({5});
    second[4] = bad;
    const auto found = scaler.unscale({at::ones({3}), second});
    EXPECT_EQ(found.item<double>(), 1.0);
    scaler.update(found);
    EXPECT_EQ(scaler.current_scale(), scale /= 2.0);
  }
}

TEST(LossScaler, DoublesItsScaleAfterTwoThousandGoodIterationsInARow) {
  engine::LossScaler scaler(at::kCPU);
  const auto good = at::zeros({1}), bad = at::ones({1});
  for (int i = 0; i < 1999; ++i) scaler.update(good);
  EXPECT_EQ(scaler.current_scale(), 1024.0);
  scaler.update(good);
  EXPECT_EQ(scaler.current_scale(), 2048.0);
  for (int i = 0; i < 1999; ++i) scaler.update(good);
  scaler.update(bad);
  EXPECT_EQ(scaler.current_scale(), 1024.0);
  for (int i = 0; i < 1999; ++i) scaler.update(good);
  EXPECT_EQ(scaler.current_scale(), 1024.0) << "the count begins anew at an overflow";
  scaler.update(good);
  EXPECT_EQ(scaler.current_scale(), 2048.0);
}

}  // namespace
}  // namespace clip_lora::testing
