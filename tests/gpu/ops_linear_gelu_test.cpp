#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <tuple>

#include "clip_lora/ops/linear_gelu.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

using ops::Gelu;

// Sums are in float32, and what is rounded to the type is the hidden rows and the result: 2⁻¹² and 2⁻⁹ of
// each at the most.
double gelu_tolerance(at::ScalarType type) {
  if (type == at::kFloat) return 3e-6;
  return type == at::kHalf ? 1e-3 : 8e-3;
}

struct Shape {
  std::int64_t rows, features, inputs;
};
// On Hopper the first ones are the fused kernels': whole tiles, rests of tiles in all directions, the MLPs of
// ViT-B/16 and ViT-L/14. The last ones are too small for them, or odd.
const std::vector<Shape> kShapes = {{6144, 3072, 768}, {6304, 3072, 768}, {8224, 4096, 1024},
                                    {4165, 2048, 512}, {50001, 136, 72},  {1, 40000, 64},
                                    {193, 32776, 8},   {90, 2048, 512},   {77, 100, 36}};

class LinearGeluOnCuda : public ::testing::TestWithParam<std::tuple<at::ScalarType, Gelu>> {
 protected:
  void SetUp() override {
    CLIP_LORA_NEEDS_GPU();
    at::manual_seed(5);
  }

  at::ScalarType type() const { return std::get<0>(GetParam()); }
  Gelu kind() const { return std::get<1>(GetParam()); }

  at::Tensor random(at::IntArrayRef shape, double scale = 1.0) const {
    return (at::randn(shape, at::TensorOptions(at::kCUDA)) * scale).to(type());
  }
  void expect_close(const at::Tensor& actual, const at::Tensor& expected, const Shape& shape) const {
    EXPECT_EQ(actual.scalar_type(), type());
    EXPECT_TRUE(
        close_in_norm(actual.to(at::kFloat).cpu(), expected.to(at::kFloat).cpu(), gelu_tolerance(type())))
        << shape.rows << " x " << shape.features << " x " << shape.inputs;
  }
};

TEST_P(LinearGeluOnCuda, EqualsItsDefinition) {
  for (const Shape& shape : kShapes) {
    const auto x = random({shape.rows, shape.inputs}), bias = random({shape.features}, 0.5);
    const auto weight =
        random({shape.features, shape.inputs}, 1.0 / std::sqrt(static_cast<double>(shape.inputs)));
    const auto hidden = at::addmm(bias.to(at::kDouble), x.to(at::kDouble), weight.to(at::kDouble).t());
    const auto result = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/true);
    expect_close(result.hidden, hidden, shape);
    expect_close(result.out, ops::gelu(hidden, kind()), shape);

    const auto alone = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/false);
    EXPECT_FALSE(alone.hidden.defined());
    EXPECT_TRUE(identical(alone.out, result.out));
  }
}

TEST_P(LinearGeluOnCuda, HasItsDefinitionsGradient) {
  for (const Shape& shape : kShapes) {
    const auto dy = random({shape.rows, shape.inputs}), hidden = random({shape.rows, shape.features}, 2.0);
    const auto weight =
        random({shape.inputs, shape.features}, 1.0 / std::sqrt(static_cast<double>(shape.inputs)));
    const auto before = hidden.clone();
    const auto expected =
        ops::gelu_linear_backward(dy.to(at::kDouble), weight.to(at::kDouble), hidden.to(at::kDouble), kind());
    expect_close(ops::gelu_linear_backward(dy, weight, hidden, kind()), expected, shape);
    EXPECT_TRUE(identical(hidden, before));
  }
}

TEST_P(LinearGeluOnCuda, TakesRowsThatLieApart) {
  const Shape shape = {.rows = 6304, .features = 2048, .inputs = 512};
  const auto x = random({6304, 520}).narrow(1, 0, 512), bias = random({2048});
  const auto weight = random({2048, 528}, 0.05).narrow(1, 0, 512);
  const auto result = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/true);
  const auto dense =
      ops::linear_gelu(x.contiguous(), weight.contiguous(), bias, kind(), /*keep_hidden=*/true);
  expect_close(result.out, dense.out, shape);
  const auto wide = random({512, 2056}, 0.05).narrow(1, 0, 2048);
  expect_close(ops::gelu_linear_backward(x, wide, result.hidden, kind()),
               ops::gelu_linear_backward(x.contiguous(), wide.contiguous(), result.hidden, kind()), shape);
}

TEST_P(LinearGeluOnCuda, GivesTheSameBitsEachTime) {
  const auto x = random({6304, 768}), weight = random({3072, 768}, 0.03), bias = random({3072});
  const auto down = random({768, 3072}, 0.03);
  const auto first = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/true);
  const auto gradient = ops::gelu_linear_backward(x, down, first.hidden, kind());
  for (int i = 0; i < 5; ++i) {
    const auto again = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/true);
    EXPECT_TRUE(identical(again.hidden, first.hidden));
    EXPECT_TRUE(identical(again.out, first.out));
    EXPECT_TRUE(identical(ops::gelu_linear_backward(x, down, first.hidden, kind()), gradient));
  }
}

TEST_P(LinearGeluOnCuda, StaysAtItsLimitsForLargeInputs) {
  const auto x = at::ones({6304, 8}, at::TensorOptions(at::kCUDA).dtype(type()));
  const auto weight = at::zeros({1024, 8}, x.options()), bias = at::full({1024}, 6e4, x.options());
  bias.narrow(0, 0, 512).neg_();
  const auto result = ops::linear_gelu(x, weight, bias, kind(), /*keep_hidden=*/true);
  EXPECT_TRUE(close(result.out, at::relu(result.hidden), 0.0));
  const auto gradient = ops::gelu_linear_backward(x, at::ones({8, 1024}, x.options()), result.hidden, kind());
  EXPECT_TRUE(close(gradient, result.hidden.gt(0).to(type()) * 8.0, 0.0));
}

INSTANTIATE_TEST_SUITE_P(, LinearGeluOnCuda,
                         ::testing::Combine(::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                                            ::testing::Values(Gelu::kQuick, Gelu::kExact)),
                         [](const auto& test) {
                           return std::string(c10::toString(std::get<0>(test.param))) +
                                  (std::get<1>(test.param) == Gelu::kQuick ? "Quick" : "Exact");
                         });

}  // namespace
}  // namespace clip_lora::testing
