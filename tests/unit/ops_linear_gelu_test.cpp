#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/ops/linear_gelu.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

using ops::Gelu;

at::Tensor gelu_as_its_formula_reads(const at::Tensor& h, Gelu kind) {
  if (kind == Gelu::kQuick) return h * at::sigmoid(1.702 * h);
  return h * 0.5 * (1.0 + at::erf(h / std::sqrt(2.0)));
}

TEST(LinearGelu, IsTheProductAndItsActivation) {
  const auto x = at::randn({5, 24}, at::kDouble), weight = at::randn({40, 24}, at::kDouble),
             bias = at::randn({40}, at::kDouble);
  const auto hidden = x.matmul(weight.t()) + bias;
  for (const auto kind : {Gelu::kQuick, Gelu::kExact}) {
    const auto expected = gelu_as_its_formula_reads(hidden, kind);
    for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-13}, {at::kFloat, 2e-5}}) {
      const auto result =
          ops::linear_gelu(x.to(type), weight.to(type), bias.to(type), kind, /*keep_hidden=*/true);
      EXPECT_TRUE(close(result.hidden, hidden, tolerance));
      EXPECT_TRUE(close(result.out, expected, tolerance));
    }
  }
}

TEST(LinearGelu, KeepsItsHiddenRowsOnRequestAlone) {
  const auto x = at::randn({5, 24}), weight = at::randn({40, 24}), bias = at::randn({40});
  const auto kept = ops::linear_gelu(x, weight, bias, Gelu::kQuick, /*keep_hidden=*/true);
  const auto result = ops::linear_gelu(x, weight, bias, Gelu::kQuick, /*keep_hidden=*/false);
  EXPECT_FALSE(result.hidden.defined());
  EXPECT_TRUE(identical(result.out, kept.out));
}

TEST(LinearGelu, NamesShapesThatDoNotFit) {
  const auto x = at::randn({5, 24}), weight = at::randn({40, 16});
  EXPECT_THROW(ops::linear_gelu(x, weight, at::randn({40}), Gelu::kQuick, true), c10::Error);
  EXPECT_THROW(ops::linear_gelu(x, at::randn({40, 24}), at::randn({24}), Gelu::kQuick, true), c10::Error);
  EXPECT_THROW(ops::gelu_linear_backward(x, at::randn({24, 40}), at::randn({5, 24}), Gelu::kQuick),
               c10::Error);
}

TEST(GeluLinearBackward, IsTheGradientOfTheHiddenRows) {
  const auto weight = at::randn({24, 40}, at::kDouble), dy = at::randn({5, 24}, at::kDouble);
  for (const auto kind : {Gelu::kQuick, Gelu::kExact}) {
    auto hidden = (at::randn({5, 40}, at::kDouble) * 2.0).requires_grad_();
    const auto y = gelu_as_its_formula_reads(hidden, kind).matmul(weight.t());
    const auto expected = torch::autograd::grad({y}, {hidden}, {dy})[0];
    for (const auto& [type, tolerance] : {std::pair{at::kDouble, 1e-13}, {at::kFloat, 2e-5}}) {
      const auto h = hidden.detach().to(type, false, /*copy=*/true), before = h.clone();
      EXPECT_TRUE(
          close(ops::gelu_linear_backward(dy.to(type), weight.to(type), h, kind), expected, tolerance));
      EXPECT_TRUE(identical(h, before));
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
