#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/linear.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

TEST(Linear, IsTheProductWithBiasAndResidual) {
  const auto x = at::randn({5, 9}), weight = at::randn({4, 12}).narrow(1, 0, 9), bias = at::randn({4});
  const auto residual = at::randn({5, 4}), before = residual.clone();
  const auto product = x.matmul(weight.t());
  EXPECT_TRUE(close(ops::linear(x, weight), product, 1e-6));
  EXPECT_TRUE(close(ops::linear(x, weight, bias), product + bias, 1e-6));
  EXPECT_TRUE(close(ops::linear(x, weight, {}, residual), product + residual, 1e-6));
  EXPECT_TRUE(close(ops::linear(x, weight, bias, residual), product + bias + residual, 1e-6));
  EXPECT_TRUE(at::equal(residual, before));
}

TEST(Linear, BackwardIsAutogradsGradient) {
  const auto x = at::randn({5, 9}).requires_grad_(), weight = at::randn({4, 9}), dy = at::randn({5, 4});
  at::linear(x, weight).backward(dy);
  EXPECT_TRUE(close(ops::linear_backward(dy, weight), x.grad(), 1e-6));
  const auto residual = at::randn({5, 9});
  EXPECT_TRUE(close(ops::linear_backward(dy, weight, residual), x.grad() + residual, 1e-6));
}

TEST(Linear, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(ops::linear(at::randn({5, 9}), at::randn({4, 8})), c10::Error);
  EXPECT_THROW(ops::linear_backward(at::randn({5, 9}), at::randn({4, 9})), c10::Error);
  EXPECT_THROW(ops::linear_backward(at::randn({5, 4}), at::randn({4, 9}), at::randn({4, 9})), c10::Error);
}

}  // namespace
}  // namespace clip_lora::testing
