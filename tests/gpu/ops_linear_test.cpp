#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/linear.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

/// Relative norm that a product of `type` may be off by, whose sums are in float32.
double tolerance(at::ScalarType type) {
  if (type == at::kFloat) return 1e-6;
  return type == at::kHalf ? 1e-3 : 8e-3;
}

class LinearOnCuda : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_GPU(); }

  at::Tensor random(at::IntArrayRef shape) const {
    return at::randn(shape, at::TensorOptions(at::kCUDA).dtype(GetParam()));
  }
  void expect_close(const at::Tensor& actual, const at::Tensor& expected) const {
    EXPECT_EQ(actual.scalar_type(), GetParam());
    EXPECT_TRUE(close_in_norm(actual.cpu().to(at::kDouble), expected.cpu(), tolerance(GetParam())));
  }
};

TEST_P(LinearOnCuda, IsTheProductWithBiasAndResidual) {
  for (const std::int64_t rows : {1, 90, 6304}) {
    const auto x = random({rows, 776}), weight = random({2304, 776}), bias = random({2304});
    const auto residual = random({rows, 2304});
    const auto product = x.to(at::kDouble).matmul(weight.to(at::kDouble).t());
    expect_close(ops::linear(x, weight), product);
    expect_close(ops::linear(x, weight, bias), product + bias.to(at::kDouble));
    expect_close(ops::linear(x, weight, bias, residual),
                 product + bias.to(at::kDouble) + residual.to(at::kDouble));
  }
}

TEST_P(LinearOnCuda, TakesRowsThatLieApart) {
  const auto x = random({40, 96}).narrow(1, 0, 64), weight = random({128, 72}).narrow(1, 0, 64);
  expect_close(ops::linear(x, weight), x.to(at::kDouble).matmul(weight.to(at::kDouble).t()));
  const auto dy = random({40, 128});
  const auto product = dy.to(at::kDouble).matmul(weight.to(at::kDouble));
  expect_close(ops::linear_backward(dy, weight), product);
  const auto residual = random({40, 80}).narrow(1, 0, 64);
  expect_close(ops::linear_backward(dy, weight, residual), product + residual.to(at::kDouble));
}

TEST_P(LinearOnCuda, TakesWidthsThatTheLibraryDoesNot) {
  const auto x = random({5, 7}), weight = random({3, 7}), bias = random({3}), residual = random({5, 3});
  expect_close(ops::linear(x, weight, bias, residual), x.to(at::kDouble).matmul(weight.to(at::kDouble).t()) +
                                                           bias.to(at::kDouble) + residual.to(at::kDouble));
}

TEST_P(LinearOnCuda, GivesTheSameBitsEachTime) {
  const auto dy = random({6304, 2304}), weight = random({2304, 776});
  const auto first = ops::linear_backward(dy, weight);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(at::equal(ops::linear_backward(dy, weight), first));
}

INSTANTIATE_TEST_SUITE_P(, LinearOnCuda, ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

}  // namespace
}  // namespace clip_lora::testing
