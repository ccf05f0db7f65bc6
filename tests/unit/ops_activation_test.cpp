#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/activation.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

using ops::Gelu;

at::Tensor as_its_formula_reads(const at::Tensor& h, Gelu kind) {
  if (kind == Gelu::kQuick) return h * at::sigmoid(1.702 * h);
  return h * 0.5 * (1.0 + at::erf(h / std::sqrt(2.0)));
}

TEST(Gelu, HasItsFormulasValues) {
  const auto h = at::randn({5, 33}) * 4.0;
  for (const auto kind : {Gelu::kQuick, Gelu::kExact}) {
    const auto expected = as_its_formula_reads(h.to(at::kDouble), kind);
    EXPECT_TRUE(close(ops::gelu(h, kind), expected, 1e-6));
    EXPECT_TRUE(close(ops::gelu(h.to(at::kDouble), kind), expected, 1e-14));
  }
}

TEST(Gelu, QuickOneHasAnotherProgramsValues) {
  // x / (1 + exp(−1.702 x))
  const auto h = torch::tensor({-2.0, -1.0, 0.0, 1.0, 2.0}, at::kDouble);
  const auto expected = torch::tensor({-0.06434138, -0.15420423, 0.0, 0.84579577, 1.93565862}, at::kDouble);
  EXPECT_TRUE(close(ops::gelu(h, Gelu::kQuick), expected, 1e-7));
}

TEST(Gelu, IsRoundedOnceInLowPrecision) {
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    const auto h = (at::randn({4, 64}) * 3.0).to(type);
    for (const auto kind : {Gelu::kQuick, Gelu::kExact}) {
      const auto out = ops::gelu(h, kind);
      EXPECT_EQ(out.scalar_type(), type);
      EXPECT_TRUE(identical(out, ops::gelu(h.to(at::kFloat), kind).to(type)));
    }
  }
}

TEST(Gelu, LeavesItsInputAlone) {
  const auto h = at::randn({3, 8});
  const auto before = h.clone();
  ops::gelu(h, Gelu::kQuick);
  ops::gelu_backward_(at::ones_like(h), h, Gelu::kQuick);
  EXPECT_TRUE(identical(h, before));
}

TEST(GeluBackward, IsTheGradientOfTheFormulaWrittenOverItsInput) {
  for (const auto kind : {Gelu::kQuick, Gelu::kExact}) {
    auto h = (at::randn({5, 33}, at::kDouble) * 4.0).requires_grad_();
    const auto d_out = at::randn({5, 33}, at::kDouble);
    const auto expected = torch::autograd::grad({as_its_formula_reads(h, kind)}, {h}, {d_out})[0];
    for (const auto& [type, tolerance] :
         {std::pair{at::kDouble, 1e-13}, {at::kFloat, 2e-6}, {at::kHalf, 2e-3}}) {
      const auto written_over = d_out.to(type, false, /*copy=*/true);
      const auto result = ops::gelu_backward_(written_over, h.detach().to(type), kind);
      EXPECT_TRUE(result.is_same(written_over));
      EXPECT_TRUE(close(result, expected, tolerance)) << type;
    }
  }
}

}  // namespace
}  // namespace clip_lora::testing
