#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/residual_adapter.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"
#include "support/residual_adapters.hpp"

namespace clip_lora::testing {
namespace {

/// Relative norm that results of `type` may be off by: products are summed in float32 and rounded once each.
double adapter_tolerance(at::ScalarType type) {
  if (type == at::kFloat) return 5e-6;
  return type == at::kHalf ? 3e-3 : 2e-2;
}

struct AdapterSize {
  std::int64_t rows, width, rank;  ///< rank 0: full
};

ops::ResidualAdapter random_adapter(const AdapterSize& size) {
  const auto scale = at::full({1}, 0.3);
  if (size.rank == 0) return {at::randn({size.width, size.width}) * 0.05, {}, {}, scale};
  return {{}, at::randn({size.width, size.rank}) * 0.1, at::randn({size.rank, size.width}) * 0.1, scale};
}

void expect_equal(const AdapterSize& size, at::ScalarType type, bool has_factors, bool add) {
  const auto random = [&] { return at::randn({size.rows, size.width}).to(type); };
  const auto z = random(), residual = random(), d_out = random();
  const auto adapter = random_adapter(size);
  auto narrow = each(adapter, [&](const at::Tensor& x) { return x.cuda().to(type); });
  narrow.scale = adapter.scale.cuda();
  const auto wide = each(narrow, [](const at::Tensor& x) { return x.cpu().to(at::kFloat); });
  const auto factors = has_factors ? at::bernoulli(at::full({size.rows}, 0.8)) / 0.8 : at::Tensor();
  const auto factors_there = has_factors ? factors.cuda() : factors;

  const auto wide_z = z.to(at::kFloat);
  EXPECT_TRUE(close_in_norm(ops::add_adapted(z.cuda(), narrow, factors_there, residual.cuda()),
                            ops::add_adapted(wide_z, wide, factors, residual.to(at::kFloat)),
                            adapter_tolerance(type)));
  const auto here = each(adapter, [](const at::Tensor& x) { return at::ones_like(x); });
  const auto there = each(here, [](const at::Tensor& x) { return x.cuda(); });
  const auto expected = backward(d_out.to(at::kFloat), wide_z, wide, factors, here, add);
  const auto actual = backward(d_out.cuda(), z.cuda(), narrow, factors_there, there, add);
  EXPECT_EQ(actual.scalar_type(), type);
  EXPECT_TRUE(close_in_norm(actual, expected, adapter_tolerance(type)));
  if (size.rank == 0) {
    EXPECT_TRUE(close_in_norm(there.weight, here.weight, adapter_tolerance(type)));
  } else {
    EXPECT_TRUE(close_in_norm(there.up, here.up, adapter_tolerance(type)));
    EXPECT_TRUE(close_in_norm(there.down, here.down, adapter_tolerance(type)));
  }
  // A sum of all rows' products, which cancel but for the root of their count: of the size of W's gradient.
  const auto& weight = size.rank == 0 ? wide.weight : wide.up;
  const auto& d_weight = size.rank == 0 ? here.weight : here.up;
  EXPECT_NEAR(there.scale.item<double>(), here.scale.item<double>(),
              adapter_tolerance(type) * (weight.norm() * d_weight.norm() / 0.3).item<double>());
}

class AddAdaptedOnCuda : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_GPU(); }
};

TEST_P(AddAdaptedOnCuda, EqualsTheSameOnACpu) {
  for (const AdapterSize& size :
       {AdapterSize{197, 768, 0}, {1540, 512, 0}, {197, 768, 4}, {63, 512, 16}, {5, 20, 0}}) {
    for (const bool has_factors : {false, true}) {
      for (const bool add : {false, true}) {
        SCOPED_TRACE(::testing::Message() << "T " << size.rows << " D " << size.width << " R " << size.rank
                                          << (has_factors ? " with factors" : "") << (add ? ", added" : ""));
        expect_equal(size, GetParam(), has_factors, add);
      }
    }
  }
}

TEST_P(AddAdaptedOnCuda, TakesMatricesThatTheKernelsDoNot) {
  constexpr std::int64_t kRows = 40, kWidth = 64;
  const auto on_gpu = [&](const at::Tensor& x) { return x.cuda().to(GetParam()); };
  const auto unaligned = [&](const at::Tensor& x) {  // one value behind where memory begins
    const at::Tensor flat = at::empty({x.numel() + 1}, x.options()).narrow(0, 1, x.numel());
    return flat.copy_(x.flatten()).view(x.sizes());
  };
  const auto z = on_gpu(at::randn({kRows, kWidth})), residual = on_gpu(at::randn({kRows, 2 * kWidth}));
  const auto weight = on_gpu(at::randn({kWidth, kWidth}) * 0.05);
  const ops::ResidualAdapter plain = {weight, {}, {}, at::full({1}, 0.3).cuda()};
  ops::ResidualAdapter transposed = plain;
  transposed.weight = weight.t().contiguous().t();
  const auto factors = (at::bernoulli(at::full({kRows}, 0.8)) / 0.8).cuda();
  const auto ends = residual.narrow(1, 0, kWidth);
  const auto expected = ops::add_adapted(z, plain, factors, ends.contiguous());
  const auto gradients = [&](const at::Tensor& rows, const ops::ResidualAdapter& of) {
    const auto d_adapter = each(plain, [](const at::Tensor& x) { return at::zeros_like(x, at::kFloat); });
    const at::Tensor dz = backward(rows, rows, of, factors, d_adapter, false);
    return std::vector{dz, d_adapter.weight, d_adapter.scale};
  };
  for (const auto& adapter : {plain, transposed}) {
    EXPECT_TRUE(close_in_norm(ops::add_adapted(unaligned(z), adapter, factors, ends), expected,
                              adapter_tolerance(GetParam())));
    const auto here = gradients(unaligned(z), adapter), there = gradients(z, plain);
    for (std::size_t i = 0; i < here.size(); ++i)
      EXPECT_TRUE(close_in_norm(here[i], there[i], adapter_tolerance(GetParam()))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(, AddAdaptedOnCuda, ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

}  // namespace
}  // namespace clip_lora::testing
