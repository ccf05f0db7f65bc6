#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/residual_adapter.hpp"
#include "support/close.hpp"
#include "support/residual_adapters.hpp"

namespace clip_lora::testing {
namespace {

constexpr std::int64_t kRows = 37;

/// Of full rank if rank is 0. The weights are as large as training may make them.
ops::ResidualAdapter random_adapter(std::int64_t width, std::int64_t rank) {
  const auto scale = at::full({1}, 0.3);
  if (rank == 0) return {at::randn({width, width}) * 0.2, {}, {}, scale};
  return {{}, at::randn({width, rank}) * 0.4, at::randn({rank, width}) * 0.4, scale};
}

std::vector<at::Tensor> tensors_of(const ops::ResidualAdapter& adapter) {
  if (adapter.weight.defined()) return {adapter.weight, adapter.scale};
  return {adapter.up, adapter.down, adapter.scale};
}

/// The weights in `type`, s as it is.
ops::ResidualAdapter in_type(const ops::ResidualAdapter& adapter, at::ScalarType type) {
  auto result = each(adapter, [&](const at::Tensor& x) { return x.to(type); });
  result.scale = adapter.scale;
  return result;
}

/// h(z) as the paper writes it, for each row by itself.
at::Tensor plain_change(const at::Tensor& z, const ops::ResidualAdapter& adapter, const at::Tensor& factors) {
  const auto weight = adapter.weight.defined() ? adapter.weight : at::matmul(adapter.up, adapter.down);
  std::vector<at::Tensor> rows;
  for (std::int64_t t = 0; t < z.size(0); ++t) {
    const auto change = adapter.scale * at::mv(weight, z[t]);
    rows.push_back(z[t] + (factors.defined() ? change * factors[t] : change));
  }
  return at::stack(rows);
}

struct Size {
  std::int64_t width, rank;
};
const Size kSizes[] = {{24, 0}, {24, 3}, {24, 24}, {8, 1}};

std::vector<at::Tensor> all_factors() {
  return {at::Tensor(), at::bernoulli(at::full({kRows}, 0.8)) / 0.8, at::zeros({kRows})};
}

TEST(ResidualAdapter, IsThePapersFormula) {
  for (const auto& [width, rank] : kSizes) {
    for (const auto& factors : all_factors()) {
      const auto adapter = random_adapter(width, rank);
      const auto z = at::randn({kRows, width});
      EXPECT_TRUE(close(ops::residual_adapter(z, adapter, factors), plain_change(z, adapter, factors), 1e-6));
    }
  }
}

TEST(ResidualAdapter, TakesFactorsOfTokensOfABatchAndKeepsTheType) {
  const auto adapter = random_adapter(24, 0);
  const auto z = at::randn({5, 7, 24}), factors = at::rand({7});
  const auto h = ops::residual_adapter(z, adapter, factors);
  for (std::int64_t i = 0; i < 5; ++i)
    EXPECT_TRUE(close(h[i], ops::residual_adapter(z[i], adapter, factors), 1e-6));
  for (const auto type : {at::kHalf, at::kBFloat16, at::kDouble})
    EXPECT_EQ(ops::residual_adapter(z.to(type), adapter, factors).scalar_type(), type);
}

TEST(ResidualAdapter, ChangesNothingIfFreshOrEmpty) {
  auto adapter = random_adapter(24, 0);
  adapter.weight.zero_();
  const auto z = at::randn({kRows, 24}), residual = at::randn({kRows, 24});
  for (const auto& unchanging : {adapter, ops::ResidualAdapter()}) {
    EXPECT_TRUE(identical(ops::residual_adapter(z, unchanging, {}), z));
    EXPECT_TRUE(identical(ops::add_adapted(z, unchanging, {}, residual), z + residual));
  }
  EXPECT_TRUE(identical(ops::add_adapted_backward(residual, residual, {}), residual));
}

/// add_adapted and its backward against autograd of the definition.
void expect_definition(const Size& size, const at::Tensor& factors, at::ScalarType type, double tolerance,
                       bool add) {
  const auto z = at::randn({kRows, size.width}).to(type).to(at::kFloat).requires_grad_();
  const auto residual = at::randn({kRows, size.width}).to(type).to(at::kFloat).requires_grad_();
  const auto adapter = each(in_type(random_adapter(size.width, size.rank), type),
                            [](const at::Tensor& x) { return x.to(at::kFloat).requires_grad_(); });
  // Partly along what the adapter adds, lest the gradient of s be a sum that cancels.
  const auto change = (ops::residual_adapter(z, adapter, {}) - z).detach();
  const auto d_out = (at::randn_like(z) + change / change.std()).to(type).to(at::kFloat);
  const auto expected = residual + ops::residual_adapter(z, adapter, factors);
  auto inputs = tensors_of(adapter);
  inputs.push_back(z);
  const auto gradients = torch::autograd::grad({expected}, inputs, {d_out});

  const at::NoGradGuard no_grad;
  const auto narrow = in_type(adapter, type);
  EXPECT_TRUE(
      close_in_norm(ops::add_adapted(z.to(type), narrow, factors, residual.to(type)), expected, tolerance));
  // What a gradient is added to, or what must not be left of its memory.
  const auto before = each(adapter, [&](const at::Tensor& x) {
    return add ? at::rand(x.sizes()) : at::full(x.sizes(), std::numeric_limits<float>::quiet_NaN());
  });
  const auto d_adapter = each(before, [](const at::Tensor& x) { return x.clone(); });
  const auto dz = backward(d_out.to(type), z.to(type), narrow, factors, d_adapter, add);
  EXPECT_EQ(dz.scalar_type(), type);
  EXPECT_TRUE(close_in_norm(dz, gradients.back(), tolerance));
  const auto actual = tensors_of(d_adapter), start = tensors_of(before);
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_EQ(actual[i].scalar_type(), at::kFloat);
    EXPECT_TRUE(close_in_norm(actual[i], add ? start[i] + gradients[i] : gradients[i], tolerance)) << i;
  }
}

TEST(AddAdapted, AndItsBackwardEqualAutogradOfTheDefinition) {
  // In low precision products, sums and the results are rounded once each; s's gradient is a sum that
  // cancels.
  for (const auto& [type, tolerance] :
       {std::pair{at::kFloat, 2e-6}, {at::kHalf, 5e-3}, {at::kBFloat16, 4e-2}}) {
    for (const auto& size : kSizes) {
      for (const auto& factors : all_factors()) {
        for (const bool add : {false, true}) {
          SCOPED_TRACE(::testing::Message()
                       << type << " D " << size.width << " R " << size.rank
                       << (factors.defined() ? " with factors" : "") << (add ? ", added" : ""));
          expect_definition(size, factors, type, tolerance, add);
        }
      }
    }
  }
}

TEST(AddAdapted, GivesTheScalesGradientWhereTheScaleIsZero) {
  auto adapter = random_adapter(24, 0);
  adapter.scale.zero_();
  const auto z = at::randn({kRows, 24}), d_out = at::randn({kRows, 24});
  const auto d_adapter = each(adapter, [](const at::Tensor& x) { return at::empty_like(x); });
  EXPECT_TRUE(identical(backward(d_out, z, adapter, {}, d_adapter, false), d_out));
  EXPECT_TRUE(close(d_adapter.scale, (d_out * at::linear(z, adapter.weight)).sum().view({1}), 1e-5));
  EXPECT_TRUE(d_adapter.weight.eq(0).all().item<bool>());
}

TEST(AddAdapted, TakesProductsThatAreTooLargeForFloat64) {
  constexpr std::int64_t kTokens = 700, kWidth = 256;
  const auto adapter = random_adapter(kWidth, 0);
  const auto z = at::randn({kTokens, kWidth}), residual = at::randn({kTokens, kWidth});
  const auto factors = at::bernoulli(at::full({kTokens}, 0.8)) / 0.8;
  EXPECT_TRUE(close(ops::add_adapted(z, adapter, factors, residual),
                    residual + ops::residual_adapter(z, adapter, factors), 2e-6));
  const auto d_adapter = each(adapter, [](const at::Tensor& x) { return at::empty_like(x); });
  const auto dz = backward(residual, z, adapter, factors, d_adapter, false);
  const auto d_change = residual * factors.unsqueeze(1) * adapter.scale;
  EXPECT_TRUE(close(dz, residual + d_change.matmul(adapter.weight), 2e-6));
  EXPECT_TRUE(close(d_adapter.weight, d_change.t().matmul(z), 2e-6));
}

TEST(AddAdapted, SaysWhatDoesNotFit) {
  const auto z = at::randn({5, 24}), residual = at::randn({5, 24});
  const auto adapter = random_adapter(24, 0);
  EXPECT_THROW(ops::add_adapted(z, adapter, {}, at::randn({4, 24})), c10::Error);
  EXPECT_THROW(ops::add_adapted(z, adapter, at::ones({4}), residual), c10::Error);
  EXPECT_THROW(ops::add_adapted(z, random_adapter(16, 0), {}, residual), c10::Error);
  EXPECT_THROW(ops::add_adapted(z, random_adapter(16, 2), {}, residual), c10::Error);
  EXPECT_THROW(ops::residual_adapter(z, random_adapter(16, 0), {}), c10::Error);
  EXPECT_THROW(ops::change_gradient(residual, at::ones({4})), c10::Error);
  EXPECT_THROW(ops::add_adapted_backward(residual, at::randn({4, 24}), adapter), c10::Error);
  EXPECT_THROW(ops::residual_adapter_gradients(residual, z, adapter, random_adapter(24, 2), true),
               c10::Error);
}

TEST(MergingMatrix, MergesTheAdapterIntoTheModuleBeforeIt) {
  for (const auto& [width, rank] : kSizes) {
    auto adapter = random_adapter(width, rank);
    const auto weight = at::randn({width, 10}), bias = at::randn({width}), x = at::randn({kRows, 10});
    const auto m = ops::merging_matrix(adapter, 0.5);
    const auto merged = at::linear(x, m.matmul(weight), m.mv(bias));
    adapter.scale = adapter.scale * 0.5;
    EXPECT_TRUE(close(merged, ops::residual_adapter(at::linear(x, weight, bias), adapter, {}), 2e-6));
    EXPECT_TRUE(close(ops::merging_matrix(adapter, 0.0), at::eye(width), 0.0));
  }
}

TEST(MergingMatrix, IsDifferentiable) {
  const auto adapter =
      each(random_adapter(8, 2), [](const at::Tensor& x) { return at::Tensor(x).requires_grad_(); });
  const auto gradients =
      torch::autograd::grad({ops::merging_matrix(adapter, 2.0).sum()}, tensors_of(adapter));
  EXPECT_TRUE(close(gradients.back(), 2.0 * at::matmul(adapter.up, adapter.down).sum().view({1}), 1e-6));
}

}  // namespace
}  // namespace clip_lora::testing
