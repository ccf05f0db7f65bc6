#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "clip_lora/model/transformer.hpp"
#include "support/close.hpp"

namespace clip_lora::testing {
namespace {

constexpr double kLayerTolerance = 1e-6;  // float32 against float64, one layer

void fill_randomly(torch::nn::Module& module) {
  const at::NoGradGuard no_grad;
  for (auto& parameter : module.parameters()) parameter.normal_(0.0, 0.5);
}

at::Tensor as_double(const at::Tensor& tensor) { return tensor.to(at::kDouble); }

/// c_proj(activation(c_fc(x))) in float64.
template <typename Nonlinearity>
at::Tensor perceptron(const model::Mlp& mlp, const at::Tensor& x, const Nonlinearity& nonlinearity) {
  const auto hidden = at::linear(as_double(x), as_double(mlp->c_fc->weight), as_double(mlp->c_fc->bias));
  return at::linear(nonlinearity(hidden), as_double(mlp->c_proj->weight), as_double(mlp->c_proj->bias))
      .to(at::kFloat);
}

TEST(Mlp, HasExactGeluWhereTheArchitectureSaysSo) {
  model::Mlp mlp(model::TowerArchitecture{
      .width = 6, .layers = 1, .mlp_width = 10, .heads = 1, .activation = model::Activation::kGelu});
  fill_randomly(*mlp);
  const auto x = at::randn({5, 6});
  const auto expected =
      perceptron(mlp, x, [](const at::Tensor& h) { return 0.5 * h * (1.0 + at::erf(h / std::sqrt(2.0))); });
  EXPECT_TRUE(close(mlp->forward(x), expected, kLayerTolerance));
}

TEST(Mlp, HasQuickGeluElse) {
  model::Mlp mlp(model::TowerArchitecture{.width = 6, .layers = 1, .mlp_width = 10, .heads = 1});
  fill_randomly(*mlp);
  const auto x = at::randn({5, 6});
  const auto expected = perceptron(mlp, x, [](const at::Tensor& h) { return h * at::sigmoid(1.702 * h); });
  EXPECT_TRUE(close(mlp->forward(x), expected, kLayerTolerance));
}

TEST(Mlp, IsAsWideAsTheArchitectureSays) {
  const model::Mlp mlp(model::TowerArchitecture{.width = 6, .layers = 1, .mlp_width = 26, .heads = 1});
  EXPECT_EQ(mlp->c_fc->weight.sizes(), (std::vector<std::int64_t>{26, 6}));
  EXPECT_EQ(mlp->c_proj->weight.sizes(), (std::vector<std::int64_t>{6, 26}));
}

TEST(LayerNorm, AddsItsEpsilonToTheVariance) {
  const double epsilon = 0.5;
  model::LayerNorm norm(8, epsilon);
  fill_randomly(*norm);
  const auto x = at::randn({4, 8});
  const auto centred = as_double(x) - as_double(x).mean(-1, true);
  const auto variance = (centred * centred).mean(-1, true);
  const auto expected =
      centred / at::sqrt(variance + epsilon) * as_double(norm->weight) + as_double(norm->bias);
  EXPECT_TRUE(close(norm->forward(x), expected.to(at::kFloat), kLayerTolerance));
}

TEST(Attention, HasAsManyHeadsAsItIsTold) {  // against LibTorch's own layer, for head widths other than 64
  const at::NoGradGuard no_grad;
  for (const std::int64_t heads : {1, 2, 3, 8}) {
    model::Attention attention(48, heads, /*causal=*/false);
    fill_randomly(*attention);
    torch::nn::MultiheadAttention oracle(48, heads);
    oracle->in_proj_weight.copy_(attention->in_proj_weight);
    oracle->in_proj_bias.copy_(attention->in_proj_bias);
    oracle->out_proj->weight.copy_(attention->out_proj->weight);
    oracle->out_proj->bias.copy_(attention->out_proj->bias);
    oracle->eval();
    const auto x = at::randn({2, 7, 48});
    const auto sequence_first = x.transpose(0, 1);
    const auto expected =
        std::get<0>(oracle->forward(sequence_first, sequence_first, sequence_first)).transpose(0, 1);
    attention->eval();
    EXPECT_TRUE(close(attention->forward(x), expected, 1e-5)) << heads << " heads";  // float32 on both sides
  }
}

}  // namespace
}  // namespace clip_lora::testing
