#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/layer_norm.hpp"
#include "ops/device_limits.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"
#include "support/layer_norm_case.hpp"

namespace clip_lora::testing {
namespace {

// Widths of all towers, few rows, masks left out, every rank the kernels are made for, and ranks beyond them.
const LayerNormCase kCases[] = {
    {"vision", 397, 768, {2, 2, 2}},     {"text_chunk", 90, 512, {2, 2, 2}, 0.25, 5, 4000},
    {"one_row", 1, 640, {1, 1, 1}, 0.5}, {"large", 61, 1024, {2, 0, 2}, 0.1},
    {"huge", 35, 1280, {0, 3, 0}},       {"giant", 35, 1408, {2, 1, 0}},
    {"bigger", 19, 1664, {2, 2, 2}},     {"rank_4", 130, 768, {4, 3, 4}},
    {"rank_8", 130, 640, {8, 8, 8}},     {"rank_8_wide", 33, 1280, {8, 0, 8}},
    {"rank_16", 70, 512, {16, 16, 16}},  {"no_dropout", 50, 768, {2, 2, 2}, 0.0},
    {"odd_width", 33, 100, {2, 2, 2}},
};
// As the output projection has it: one update.
const LayerNormCase kOneUpdate[] = {
    {"output_of_vision", 397, 768, {2, 0, 0}},
    {"output_of_text_chunk", 90, 512, {4, 0, 0}, 0.1, 5, 4000},
    {"output_of_huge", 33, 1280, {7, 0, 0}},
};
const LayerNormCase kPlain = {"plain", 131, 768, {0, 0, 0}};

LayerNormInputs to_gpu(LayerNormInputs in) {
  for (at::Tensor* tensor : {&in.x, &in.d_rows, &in.residual, &in.weights.weight, &in.weights.bias,
                             &in.down.a, &in.down.dropout.state}) {
    if (tensor->defined()) *tensor = tensor->cuda();
  }
  return in;
}

/// The same values in float32: the definition's inputs.
LayerNormInputs to_float(LayerNormInputs in) {
  for (at::Tensor* tensor : {&in.x, &in.d_rows, &in.residual, &in.weights.weight, &in.weights.bias}) {
    *tensor = tensor->to(at::kFloat);
  }
  return in;
}

at::Tensor back(const at::Tensor& tensor) { return tensor.cpu().to(at::kFloat); }

/// Of relative norms: rounding of the results, and for the low precisions of the rows that the columns come
/// from.
double tolerance_of(at::ScalarType type) {
  return type == at::kFloat ? 1e-5 : type == at::kHalf ? 2e-3 : 1.5e-2;
}

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kHalf, at::kBFloat16};
constexpr std::int64_t kParts = 7;

at::Tensor parts_of(const LayerNormCase& what, at::Device device) {
  return at::full({kParts, what.rank(), what.width}, 7.0, at::TensorOptions(device));
}

class GpuLayerNorm : public ::testing::TestWithParam<LayerNormCase> {
 protected:
  void TearDown() override { ops::cap_shared_memory(0); }
};

void expect_layer_norm_as_on_cpu(const LayerNormCase& what, at::ScalarType type) {
  SCOPED_TRACE(at::toString(type));
  const double tolerance = tolerance_of(type);
  const LayerNormInputs low = make_inputs(what, type), cpu = to_float(low), gpu = to_gpu(low);
  const auto expected = ops::layer_norm(cpu.x, cpu.weights, cpu.down);
  const auto actual = ops::layer_norm(gpu.x, gpu.weights, gpu.down);
  EXPECT_TRUE(close_in_norm(back(actual.rows), expected.rows, tolerance));
  EXPECT_TRUE(close_in_norm(back(actual.mean), expected.mean, 1e-5));
  EXPECT_TRUE(close_in_norm(back(actual.inverse_deviation), expected.inverse_deviation, 1e-5));
  if (what.rank() > 0) {
    EXPECT_TRUE(close_in_norm(back(actual.rows).narrow(1, what.width, what.columns()),
                              expected.rows.narrow(1, what.width, what.columns()), tolerance));
  }
  const at::Tensor cpu_parts = parts_of(what, at::kCPU), gpu_parts = parts_of(what, at::kCUDA);
  for (const bool with_residual : {true, false}) {
    const auto run = [&](const LayerNormInputs& in, const ops::Normalised& normalised,
                         const at::Tensor& d_a) {
      return ops::layer_norm_backward(in.d_rows, in.x, normalised, in.weights, in.down,
                                      with_residual ? in.residual : at::Tensor(), d_a, true);
    };
    EXPECT_TRUE(close_in_norm(back(run(gpu, actual, gpu_parts)), run(cpu, expected, cpu_parts), tolerance));
    EXPECT_TRUE(close_in_norm(back(gpu_parts.sum(0)), cpu_parts.sum(0), tolerance));
  }
  const at::Tensor alone = parts_of(what, at::kCUDA);
  EXPECT_FALSE(
      ops::layer_norm_backward(gpu.d_rows, gpu.x, actual, gpu.weights, gpu.down, {}, alone, false).defined());
  EXPECT_TRUE(what.rank() == 0 || identical(alone.cpu(), gpu_parts.cpu()));
}

TEST_P(GpuLayerNorm, EqualsTheDefinition) {
  CLIP_LORA_NEEDS_GPU();
  for (const at::ScalarType type : kTypes) expect_layer_norm_as_on_cpu(GetParam(), type);
}

TEST_P(GpuLayerNorm, EqualsTheDefinitionWithLittleSharedMemory) {
  CLIP_LORA_NEEDS_GPU();
  for (const int kibibytes : {64, 99}) {
    ops::cap_shared_memory(kibibytes * 1024);
    expect_layer_norm_as_on_cpu(GetParam(), at::kHalf);
  }
}

INSTANTIATE_TEST_SUITE_P(Updates, GpuLayerNorm, ::testing::ValuesIn(kCases),
                         [](const auto& what) { return what.param.name; });
INSTANTIATE_TEST_SUITE_P(NoUpdate, GpuLayerNorm, ::testing::Values(kPlain),
                         [](const auto& what) { return what.param.name; });

class GpuAppendDownProjection : public ::testing::TestWithParam<LayerNormCase> {};

TEST_P(GpuAppendDownProjection, EqualsTheDefinition) {
  CLIP_LORA_NEEDS_GPU();
  for (const at::ScalarType type : kTypes) {
    SCOPED_TRACE(at::toString(type));
    const double tolerance = tolerance_of(type);
    const LayerNormInputs low = make_inputs(GetParam(), type), cpu = to_float(low), gpu = to_gpu(low);
    const at::Tensor rows = ops::append_down_projection(gpu.x, gpu.down);
    EXPECT_TRUE(close_in_norm(back(rows), ops::append_down_projection(cpu.x, cpu.down), tolerance));
    const at::Tensor cpu_parts = parts_of(GetParam(), at::kCPU), gpu_parts = parts_of(GetParam(), at::kCUDA);
    EXPECT_TRUE(close_in_norm(
        back(ops::append_down_projection_backward(gpu.d_rows, gpu.x, gpu.down, gpu_parts)),
        ops::append_down_projection_backward(cpu.d_rows, cpu.x, cpu.down, cpu_parts), tolerance));
    EXPECT_TRUE(close_in_norm(back(gpu_parts.sum(0)), cpu_parts.sum(0), tolerance));
  }
}

INSTANTIATE_TEST_SUITE_P(Updates, GpuAppendDownProjection, ::testing::ValuesIn(kCases),
                         [](const auto& what) { return what.param.name; });

INSTANTIATE_TEST_SUITE_P(OneUpdate, GpuAppendDownProjection, ::testing::ValuesIn(kOneUpdate),
                         [](const auto& what) { return what.param.name; });

class GpuUpProjectionGradient : public ::testing::TestWithParam<LayerNormCase> {};

TEST_P(GpuUpProjectionGradient, EqualsTheDefinition) {
  CLIP_LORA_NEEDS_GPU();
  const LayerNormCase& what = GetParam();
  for (const at::ScalarType type : kTypes) {
    SCOPED_TRACE(at::toString(type));
    const at::Tensor dy = at::randn({what.rows, 3 * what.width}).to(type);
    const at::Tensor rows = at::randn({what.rows, what.width + what.columns()}).to(type);
    const auto run = [&](const at::Tensor& d_out, const at::Tensor& all) {
      const auto d_b = at::full({kParts, what.rank() * what.width}, 7.0, d_out.options().dtype(at::kFloat));
      ops::up_projection_gradient(d_out, all.narrow(1, what.width, what.columns()), what.ranks,
                                  {0.5, 1.0, 2.0}, d_b);
      return d_b.sum(0);
    };
    // The kernels' sums are of products in float32; high ranks are products of the rows' type.
    EXPECT_TRUE(
        close_in_norm(back(run(dy.cuda(), rows.cuda())), run(back(dy), back(rows)), tolerance_of(type)));
  }
}

INSTANTIATE_TEST_SUITE_P(Updates, GpuUpProjectionGradient, ::testing::ValuesIn(kCases),
                         [](const auto& what) { return what.param.name; });

TEST(GpuLayerNormBackward, IsTheSameBitForBitAgain) {
  CLIP_LORA_NEEDS_GPU();
  const LayerNormInputs in = to_gpu(make_inputs(kCases[0], at::kHalf));
  const auto forward = ops::layer_norm(in.x, in.weights, in.down);
  const auto run = [&] {
    const at::Tensor d_a = at::empty({ops::gradient_parts(at::kCUDA), 6, in.x.size(1)}, in.down.a.options());
    ops::layer_norm_backward(in.d_rows, in.x, forward, in.weights, in.down, in.residual, d_a, true);
    return d_a.cpu();
  };
  EXPECT_TRUE(identical(run(), run()));
}

}  // namespace
}  // namespace clip_lora::testing
