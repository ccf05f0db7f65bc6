#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/layer_norm.hpp"
#include "support/close.hpp"
#include "support/layer_norm_case.hpp"

namespace clip_lora::testing {
namespace {

// Rows in several pieces of the CPU's loop, a width that is no multiple of 8, masks left out, high ranks.
const LayerNormCase kCases[] = {
    {"qkv", 300, 40, {2, 2, 2}},
    {"qv_of_a_chunk", 150, 27, {2, 0, 2}, 0.1, 5, 70},
    {"k_alone", 20, 40, {0, 3, 0}, 0.5},
    {"high_ranks", 130, 72, {16, 9, 16}},
    {"no_dropout", 129, 40, {1, 2, 3}, 0.0},
};
const LayerNormCase kPlain = {"plain", 140, 40, {0, 0, 0}};

/// The columns as the formula has them: A (mask ∘ y / keep), then zeros.
at::Tensor append_plainly(const at::Tensor& y, const at::Tensor& a, const ops::DownProjection& down) {
  if (down.columns == 0) return y;
  const at::Tensor masks = ops::dropout_masks(down.dropout, 3, y.size(0), y.size(1)).to(y.scalar_type());
  std::vector<at::Tensor> parts = {y};
  std::int64_t first = 0;
  for (std::int64_t update = 0; update < 3; ++update) {
    const std::int64_t rank = down.ranks[static_cast<std::size_t>(update)];
    parts.push_back(at::mm(y * masks[update] / down.dropout.keep(), a.narrow(0, first, rank).t()));
    first += rank;
  }
  parts.push_back(at::zeros({y.size(0), down.columns - first}, y.options()));
  return at::cat(parts, 1);
}

class LayerNorm : public ::testing::TestWithParam<LayerNormCase> {};

TEST_P(LayerNorm, IsLayerNormBesideTheDownProjections) {
  const LayerNormInputs in = make_inputs(GetParam(), at::kFloat);
  const auto result = ops::layer_norm(in.x, in.weights, in.down);
  const at::Tensor y = at::layer_norm(in.x, {in.x.size(1)}, in.weights.weight, in.weights.bias, 1e-5);
  EXPECT_TRUE(close(result.rows, append_plainly(y, in.down.a, in.down), 1e-5));  // float32, a few sums
  EXPECT_TRUE(close(result.mean, in.x.mean(1), 1e-6));
  EXPECT_TRUE(close(result.inverse_deviation, (in.x.var(1, false) + 1e-5).rsqrt(), 1e-5));
}

TEST_P(LayerNorm, BackwardEqualsAutograd) {
  LayerNormInputs in = make_inputs(GetParam(), at::kDouble);
  const bool has_update = in.down.columns > 0;
  if (has_update) in.down.a = in.down.a.to(at::kDouble);
  const at::Tensor x = in.x.clone().requires_grad_();
  const at::Tensor a = has_update ? in.down.a.clone().requires_grad_() : at::Tensor();
  const at::Tensor y = at::layer_norm(x, {x.size(1)}, in.weights.weight, in.weights.bias, 1e-5);
  append_plainly(y, a, in.down).backward(in.d_rows);

  const auto forward = ops::layer_norm(in.x, in.weights, in.down);
  const auto d_a = at::full({3, std::max<std::int64_t>(GetParam().rank(), 1), x.size(1)}, 7.0, at::kDouble);
  const auto dx =
      ops::layer_norm_backward(in.d_rows, in.x, forward, in.weights, in.down, in.residual, d_a, true);
  EXPECT_TRUE(close(dx, x.grad() + in.residual, 1e-12));
  EXPECT_TRUE(identical(
      ops::layer_norm_backward(in.d_rows, in.x, forward, in.weights, in.down, {}, d_a, true) + in.residual,
      dx));
  if (has_update) {
    EXPECT_TRUE(close(d_a.sum(0), a.grad(), 1e-12));
    const auto alone = at::full_like(d_a, 7.0);
    EXPECT_FALSE(
        ops::layer_norm_backward(in.d_rows, in.x, forward, in.weights, in.down, {}, alone, false).defined());
    EXPECT_TRUE(identical(alone, d_a));
  }
}

INSTANTIATE_TEST_SUITE_P(Updates, LayerNorm, ::testing::ValuesIn(kCases),
                         [](const auto& what) { return what.param.name; });
INSTANTIATE_TEST_SUITE_P(NoUpdate, LayerNorm, ::testing::Values(kPlain),
                         [](const auto& what) { return what.param.name; });

class AppendDownProjection : public ::testing::TestWithParam<LayerNormCase> {};

TEST_P(AppendDownProjection, LeavesXAndAddsItsColumns) {
  const LayerNormInputs in = make_inputs(GetParam(), at::kFloat);
  const at::Tensor rows = ops::append_down_projection(in.x, in.down);
  EXPECT_TRUE(identical(rows.narrow(1, 0, in.x.size(1)).contiguous(), in.x));
  EXPECT_TRUE(close(rows, append_plainly(in.x, in.down.a, in.down), 1e-5));
}

TEST_P(AppendDownProjection, BackwardEqualsAutograd) {
  LayerNormInputs in = make_inputs(GetParam(), at::kDouble);
  in.down.a = in.down.a.to(at::kDouble);
  const at::Tensor x = in.x.clone().requires_grad_(), a = in.down.a.clone().requires_grad_();
  append_plainly(x, a, in.down).backward(in.d_rows);
  const auto d_a = at::full({2, GetParam().rank(), x.size(1)}, 7.0, at::kDouble);
  EXPECT_TRUE(close(ops::append_down_projection_backward(in.d_rows, in.x, in.down, d_a), x.grad(), 1e-12));
  EXPECT_TRUE(close(d_a.sum(0), a.grad(), 1e-12));
}

INSTANTIATE_TEST_SUITE_P(Updates, AppendDownProjection, ::testing::ValuesIn(kCases),
                         [](const auto& what) { return what.param.name; });

TEST(LayerNormBackward, LeavesItsInputsAlone) {
  const LayerNormInputs in = make_inputs(kCases[0], at::kFloat);
  const auto forward = ops::layer_norm(in.x, in.weights, in.down);
  const auto d_a = at::empty({1, 6, in.x.size(1)});
  const at::Tensor x = in.x.clone(), d_rows = in.d_rows.clone();
  ops::layer_norm_backward(in.d_rows, in.x, forward, in.weights, in.down, {}, d_a, true);
  ops::append_down_projection_backward(in.d_rows, in.x, in.down, d_a);
  EXPECT_TRUE(identical(in.x, x));
  EXPECT_TRUE(identical(in.d_rows, d_rows));
}

TEST(UpProjectionGradient, IsTheProductOfEachUpdatesParts) {
  constexpr std::int64_t kRows = 70, kWidth = 24;
  const at::Tensor rows = at::randn({kRows, kWidth + 8}), dy = at::randn({kRows, 3 * kWidth});
  const at::Tensor columns = rows.narrow(1, kWidth, 8);
  const auto d_b = at::full({2, 5 * kWidth}, 7.0);
  ops::up_projection_gradient(dy, columns, {2, 0, 3}, {0.5, 9.0, 2.0}, d_b);
  const at::Tensor expected =
      at::cat({(0.5 * at::mm(dy.narrow(1, 0, kWidth).t(), columns.narrow(1, 0, 2))).flatten(),
               (2.0 * at::mm(dy.narrow(1, 2 * kWidth, kWidth).t(), columns.narrow(1, 2, 3))).flatten()});
  EXPECT_TRUE(close(d_b.sum(0), expected, 1e-5));
}

TEST(UpProjectionGradient, OfOneUpdateIsOfTheWhole) {
  const at::Tensor columns = at::randn({9, 8}), dy = at::randn({9, 16});
  const auto d_b = at::empty({1, 64});
  ops::up_projection_gradient(dy, columns, {4, 0, 0}, {3.0, 1.0, 1.0}, d_b);
  EXPECT_TRUE(close(d_b[0].view({16, 4}), 3 * at::mm(dy.t(), columns.narrow(1, 0, 4)), 1e-5));
}

}  // namespace
}  // namespace clip_lora::testing
