#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/activation.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

// float32: a few roundings, more of them seen where the derivative cancels. Lower precision: one rounding of the result,
// 2⁻¹¹ and 2⁻⁹ of it at the most.
const std::vector<std::pair<at::ScalarType, double>> kGeluTolerances = {
    {at::kFloat, 3e-6}, {at::kHalf, 5e-4}, {at::kBFloat16, 2.5e-3}};

TEST(GeluOnCuda, EqualsItsDefinitionForwardAndBackward) {
  CLIP_LORA_NEEDS_GPU();
  const std::vector<std::vector<std::int64_t>> shapes = {{1, 1}, {3, 5}, {77, 512}, {197, 2563}, {300, 4096}};
  for (const auto& shape : shapes) {
    for (const auto& [type, tolerance] : kGeluTolerances) {
      const auto h = (at::randn(shape) * 3.0).to(type), d_out = at::randn(shape).to(type);
      for (const auto kind : {ops::Gelu::kQuick, ops::Gelu::kExact}) {
        const auto expected = ops::gelu(h.to(at::kFloat), kind);
        EXPECT_TRUE(close_in_norm(ops::gelu(h.cuda(), kind), expected, tolerance))
            << type << " " << h.sizes();
        const auto expected_gradient =
            ops::gelu_backward_(d_out.to(at::kFloat, false, true), h.to(at::kFloat), kind);
        const auto written_over = d_out.cuda();
        const auto gradient = ops::gelu_backward_(written_over, h.cuda(), kind);
        EXPECT_TRUE(gradient.is_same(written_over));
        EXPECT_TRUE(close_in_norm(gradient, expected_gradient, tolerance)) << type << " " << h.sizes();
      }
    }
  }
}

TEST(GeluOnCuda, StaysAtItsLimitsForLargeInputs) {
  CLIP_LORA_NEEDS_GPU();
  const auto h = torch::tensor({-6e4F, -1e3F, 1e3F, 6e4F}).to(at::kHalf).cuda();
  for (const auto kind : {ops::Gelu::kQuick, ops::Gelu::kExact}) {
    EXPECT_TRUE(close(ops::gelu(h, kind), at::relu(h), 0.0));
    EXPECT_TRUE(close(ops::gelu_backward_(at::ones_like(h), h, kind), h.gt(0).to(at::kHalf), 0.0));
  }
}

TEST(GeluOnCuda, TakesRowsThatBeginAnywhereAndNone) {
  CLIP_LORA_NEEDS_GPU();
  const auto h = at::randn({101});
  const auto odd = h.cuda().narrow(0, 1, 100);
  EXPECT_TRUE(
      close(ops::gelu(odd, ops::Gelu::kQuick), ops::gelu(h.narrow(0, 1, 100), ops::Gelu::kQuick), 1e-6));
  EXPECT_EQ(ops::gelu(at::empty({0, 8}, at::kCUDA), ops::Gelu::kQuick).numel(), 0);
}

}  // namespace
}  // namespace clip_lora::testing
