#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/elementwise.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

TEST(QuickGelu, HasItsFormulasValues) {
  // x / (1 + exp(-1.702 x)), computed by another program.
  const auto x = torch::tensor({-2.0, -1.0, 0.0, 1.0, 2.0}, at::kDouble);
  const auto expected = torch::tensor({-0.06434138, -0.15420423, 0.0, 0.84579577, 1.93565862}, at::kDouble);
  EXPECT_TRUE(close(ops::quick_gelu(x), expected, 1e-7));
}

TEST(L2Normalise, HasRowsOfLengthOneInFloat32) {
  const auto x = at::randn({3, 4, 7}).to(at::kHalf);
  const auto unit = ops::l2_normalise(x);
  EXPECT_EQ(unit.scalar_type(), at::kFloat);
  EXPECT_TRUE(close(unit.norm(2, -1), at::ones({3, 4}), 1e-6));
  EXPECT_TRUE(close(unit * x.to(at::kFloat).norm(2, -1, true), x, 1e-6));
}

}  // namespace
}  // namespace clip_lora::testing
