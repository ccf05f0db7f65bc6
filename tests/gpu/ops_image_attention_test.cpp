#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "clip_lora/ops/sequence_attention.hpp"
#include "ops/device_limits.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

struct AttentionShape {
  std::int64_t images, length, heads, head_width;
};

at::Tensor split_heads(const at::Tensor& rows, const AttentionShape& shape) {
  return rows.view({shape.images, shape.length, shape.heads, shape.head_width}).transpose(1, 2);
}

at::Tensor join_heads(const at::Tensor& x) { return x.transpose(1, 2).flatten(2).flatten(0, 1); }

/// Rows and the gradient of qkv, in float64.
struct Expected {
  at::Tensor rows, d_qkv;
};

Expected plain_attention(const at::Tensor& qkv, const at::Tensor& d_rows, const AttentionShape& shape) {
  const auto thirds = qkv.to(at::kDouble).chunk(3, 1);
  const auto q = split_heads(thirds[0].contiguous(), shape), k = split_heads(thirds[1].contiguous(), shape),
             v = split_heads(thirds[2].contiguous(), shape);
  const auto d_o = split_heads(d_rows.to(at::kDouble), shape);
  const double scale = 1.0 / std::sqrt(static_cast<double>(shape.head_width));
  const auto p = (q.matmul(k.transpose(-2, -1)) * scale).softmax(-1);
  const auto o = p.matmul(v);
  const auto d_s = p * (d_o.matmul(v.transpose(-2, -1)) - (d_o * o).sum(-1, true)) * scale;
  const auto d_q = d_s.matmul(k), d_k = d_s.transpose(-2, -1).matmul(q),
             d_v = p.transpose(-2, -1).matmul(d_o);
  return {join_heads(o), at::cat({join_heads(d_q), join_heads(d_k), join_heads(d_v)}, 1)};
}

class ImageAttentionOnCuda : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_GPU(); }
  void TearDown() override { ops::cap_shared_memory(0); }

  /// Relative norms: exponentials and gradients of scores are rounded to 16 bits before the second products.
  void check(const AttentionShape& shape, double spread = 1.0) const {
    SCOPED_TRACE(::testing::Message() << shape.images << " images of " << shape.length << " tokens, "
                                      << shape.heads << " heads of " << shape.head_width);
    const double tolerance = GetParam() == at::kFloat ? 1e-5 : GetParam() == at::kHalf ? 2e-3 : 1.5e-2;
    const auto options = at::TensorOptions(at::kCUDA).dtype(GetParam());
    const std::int64_t width = shape.heads * shape.head_width;
    const auto qkv = at::randn({shape.images * shape.length, 3 * width}, options) * spread;
    const auto d_rows = at::randn({shape.images * shape.length, width}, options);
    const auto packing = ops::pack_images(shape.images, shape.length, at::kCUDA);
    const auto attended = ops::attend(qkv, packing, shape.heads);
    const auto d_qkv = ops::attend_backward(d_rows, qkv, attended, packing, shape.heads);
    const auto expected = plain_attention(qkv, d_rows, shape);
    ASSERT_EQ(attended.rows.scalar_type(), GetParam());
    ASSERT_TRUE(d_qkv.is_contiguous());
    EXPECT_TRUE(close_in_norm(attended.rows.to(at::kDouble).cpu(), expected.rows.cpu(), tolerance));
    EXPECT_TRUE(close_in_norm(d_qkv.to(at::kDouble).cpu(), expected.d_qkv.cpu(), tolerance));
    const auto again = ops::attend_backward(d_rows, qkv, attended, packing, shape.heads);
    EXPECT_TRUE(at::equal(again, d_qkv));
  }
};

TEST_P(ImageAttentionOnCuda, IsPlainAttentionAtAnyLength) {
  for (const std::int64_t length : {2, 7, 16, 17, 50, 197, 257, 577}) check({3, length, 2, 64});
}

TEST_P(ImageAttentionOnCuda, IsPlainAttentionAtAnyHeadWidth) {
  for (const std::int64_t width : {8, 32, 80, 88, 104, 128}) check({2, 83, 3, width});
}

TEST_P(ImageAttentionOnCuda, IsPlainAttentionOfVisionTransformers) {
  check({2, 197, 12, 64});
  check({2, 257, 16, 64});
  check({2, 257, 16, 80});
}

TEST_P(ImageAttentionOnCuda, TakesScoresFarApart) { check({2, 197, 2, 64}, 4.0); }

TEST_P(ImageAttentionOnCuda, FitsDevicesOfLittleSharedMemory) {
  for (const int kib : {64, 99}) {
    ops::cap_shared_memory(kib * 1024);
    for (const std::int64_t width : {64, 128}) {
      for (const std::int64_t length : {50, 197, 577}) check({2, length, 2, width});
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, ImageAttentionOnCuda, ::testing::Values(at::kFloat, at::kHalf, at::kBFloat16),
                         [](const auto& test) { return std::string(c10::toString(test.param)); });

}  // namespace
}  // namespace clip_lora::testing
