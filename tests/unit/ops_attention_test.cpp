#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/ops/attention.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

constexpr std::int64_t kWidth = 24;
constexpr std::int64_t kHeads = 3;
constexpr std::int64_t kRank = 5;
// float32 sums of two dozen terms, in another order.
constexpr double kTolerance = 1e-5;

ops::LowRank random_update(double dropout = 0.0) {
  return {at::randn({kRank, kWidth}), at::randn({kWidth, kRank}), 0.3, dropout};
}

ops::AttentionLora updates_everywhere(double dropout = 0.0) {
  return {random_update(dropout), random_update(dropout), random_update(dropout), random_update(dropout)};
}

ops::AttentionWeights random_weights() {
  const double deviation = 1.0 / std::sqrt(static_cast<double>(kWidth));
  return {at::randn({3 * kWidth, kWidth}) * deviation, at::randn({3 * kWidth}),
          at::randn({kWidth, kWidth}) * deviation, at::randn({kWidth})};
}

/// W x + b + γ B A (x · keep / (1 − p)), as the equation reads, in float64.
at::Tensor project(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b,
                   const std::optional<ops::LowRank>& lora, const at::Tensor& keep) {
  auto y = x.matmul(w.to(at::kDouble).t()) + b.to(at::kDouble);
  if (!lora) return y;
  const auto kept = keep.defined() ? x * keep.to(at::kDouble) / (1.0 - lora->dropout) : x;
  return y + lora->scaling * kept.matmul(lora->b.to(at::kDouble).matmul(lora->a.to(at::kDouble)).t());
}

/// Attention one query at a time.
at::Tensor attention_by_definition(const at::Tensor& input, const ops::AttentionWeights& weights,
                                   const ops::AttentionLora& lora, const ops::DropoutMasks& masks,
                                   bool causal) {
  const auto x = input.to(at::kDouble);
  const auto w = weights.in_proj_weight.chunk(3), b = weights.in_proj_bias.chunk(3);
  const auto q = project(x, w[0], b[0], lora.q, masks.q), k = project(x, w[1], b[1], lora.k, masks.k),
             v = project(x, w[2], b[2], lora.v, masks.v);
  auto mixed = at::zeros_like(x);
  const auto length = x.size(1), head_width = kWidth / kHeads;
  for (std::int64_t sequence = 0; sequence < x.size(0); ++sequence) {
    for (std::int64_t head = 0; head < kHeads; ++head) {
      const auto of_head = [&](const at::Tensor& rows) {
        return rows[sequence].narrow(1, head * head_width, head_width);
      };
      for (std::int64_t token = 0; token < length; ++token) {
        const auto seen = causal ? token + 1 : length;
        const auto keys = of_head(k).narrow(0, 0, seen), values = of_head(v).narrow(0, 0, seen);
        const auto weight =
            (keys.mv(of_head(q)[token]) / std::sqrt(static_cast<double>(head_width))).softmax(0);
        of_head(mixed)[token].copy_(weight.matmul(values));
      }
    }
  }
  return project(mixed, weights.out_proj_weight, weights.out_proj_bias, lora.o, masks.o);
}

TEST(Attention, EqualsItsDefinitionWithAndWithoutCausalMaskAndUpdates) {
  const auto x = at::randn({2, 7, kWidth});
  const auto weights = random_weights();
  for (const bool causal : {false, true}) {
    for (const auto& lora : {ops::AttentionLora{}, updates_everywhere()}) {
      const auto expected = attention_by_definition(x, weights, lora, {}, causal);
      EXPECT_TRUE(close(ops::attention(x, weights, lora, {}, kHeads, causal), expected, kTolerance))
          << causal;
    }
  }
}

TEST(Attention, AppliesEachProjectionsOwnMask) {
  const auto x = at::randn({2, 7, kWidth});
  const auto weights = random_weights();
  const auto lora = updates_everywhere(0.25);
  const auto masks = ops::draw_dropout_masks(lora, x);
  const auto expected = attention_by_definition(x, weights, lora, masks, true);
  EXPECT_TRUE(close(ops::attention(x, weights, lora, masks, kHeads, true), expected, kTolerance));
}

TEST(Attention, ATokenDoesNotFeelLaterOnesUnderTheCausalMask) {
  const auto weights = random_weights();
  const auto lora = updates_everywhere();
  auto x = at::randn({1, 6, kWidth});
  const auto before = ops::attention(x, weights, lora, {}, kHeads, true);
  x.select(1, 5).fill_(100.0);
  const auto after = ops::attention(x, weights, lora, {}, kHeads, true);
  EXPECT_TRUE(close(after.narrow(1, 0, 5), before.narrow(1, 0, 5), 1e-6));
}

TEST(Attention, GradientsOfInputAAndBEqualThoseOfTheDefinition) {
  auto x = at::randn({2, 5, kWidth}).requires_grad_();
  auto lora = updates_everywhere(0.25);
  std::vector<at::Tensor> leaves = {x};
  for (auto* update : {&lora.q, &lora.k, &lora.v, &lora.o}) {
    leaves.push_back((*update)->a.requires_grad_());
    leaves.push_back((*update)->b.requires_grad_());
  }
  const auto weights = random_weights();
  const auto masks = ops::draw_dropout_masks(lora, x);
  const auto direction = at::randn({2, 5, kWidth});
  const auto gradients = [&](const at::Tensor& y) {
    return torch::autograd::grad({(y * direction).sum()}, leaves);
  };
  const auto actual = gradients(ops::attention(x, weights, lora, masks, kHeads, true));
  const auto expected = gradients(attention_by_definition(x, weights, lora, masks, true));
  for (std::size_t i = 0; i < leaves.size(); ++i)
    EXPECT_TRUE(close(actual[i], expected[i], kTolerance)) << "leaf " << i;
}

TEST(DropoutMasks, AreDrawnOnlyForUpdatesThatDrop) {
  const ops::AttentionLora lora{random_update(0.5), std::nullopt, random_update(0.0), random_update(0.5)};
  const auto masks = ops::draw_dropout_masks(lora, at::randn({2, 3, kWidth}));
  EXPECT_TRUE(masks.q.defined());
  EXPECT_FALSE(masks.k.defined());
  EXPECT_FALSE(masks.v.defined());
  EXPECT_TRUE(masks.o.defined());
  EXPECT_EQ(masks.q.sizes(), (std::vector<std::int64_t>{2, 3, kWidth}));
}

TEST(DropoutMasks, KeepTheGivenShareAndDifferBetweenProjections) {
  const double dropout = 0.25;
  const auto x = at::randn({64, 50, kWidth});
  const auto masks = ops::draw_dropout_masks(updates_everywhere(dropout), x);
  const double count = static_cast<double>(x.numel());
  // Four standard errors of a share: one draw in 16,000 lies outside.
  const double four_errors = 4.0 * std::sqrt(dropout * (1.0 - dropout) / count);
  const std::vector<at::Tensor> all = {masks.q, masks.k, masks.v, masks.o};
  for (const auto& mask : all) {
    EXPECT_TRUE(mask.eq(0).logical_or(mask.eq(1)).all().item<bool>());
    EXPECT_NEAR(mask.to(at::kDouble).mean().item<double>(), 1.0 - dropout, four_errors);
  }
  // Independent masks agree where both keep or both drop.
  const double agreement = dropout * dropout + (1.0 - dropout) * (1.0 - dropout);
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      EXPECT_NEAR(all[i].eq(all[j]).to(at::kDouble).mean().item<double>(), agreement,
                  4.0 * std::sqrt(agreement * (1.0 - agreement) / count));
    }
  }
}

TEST(LowRankUpdate, EqualsTheProductWithAndWithoutAMask) {
  const auto x = at::randn({3, 4, kWidth});
  const auto lora = random_update(0.25);
  const auto keep = at::rand({3, 4, kWidth}).ge(0.25).to(at::kFloat);
  const auto product = [&](const at::Tensor& input) {
    return lora.scaling * input.matmul(lora.b.matmul(lora.a).t());
  };
  EXPECT_TRUE(close(ops::low_rank_update(x, lora, {}), product(x), kTolerance));
  EXPECT_TRUE(close(ops::low_rank_update(x, lora, keep), product(x * keep / 0.75), kTolerance));
}

TEST(MergedWeight, IsRoundedOnceInTheWeightsType) {
  const auto lora = random_update();
  const auto weight = at::randn({kWidth, kWidth});
  EXPECT_TRUE(close(ops::merged_weight(weight, lora), weight + 0.3 * lora.b.matmul(lora.a), 1e-6));
  const auto half = weight.to(at::kHalf);
  const auto exact = half.to(at::kDouble) + 0.3 * lora.b.to(at::kDouble).matmul(lora.a.to(at::kDouble));
  const auto merged = ops::merged_weight(half, lora);
  EXPECT_EQ(merged.scalar_type(), at::kHalf);
  EXPECT_TRUE(close(merged, exact, 1.0 / 2048.0));  // half an ulp of a half is 2⁻¹² … 2⁻¹¹ of its value
}

}  // namespace
}  // namespace clip_lora::testing
