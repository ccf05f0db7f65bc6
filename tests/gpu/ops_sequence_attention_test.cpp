#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "clip_lora/ops/sequence_attention.hpp"
#include "ops/device_limits.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

std::vector<std::int64_t> lengths(std::int64_t count, std::int64_t shortest, std::int64_t longest) {
  std::mt19937 random(static_cast<unsigned>(count));
  std::vector<std::int64_t> drawn;
  for (std::int64_t i = 0; i < count; ++i) {
    drawn.push_back(shortest +
                    static_cast<std::int64_t>(random() % static_cast<unsigned>(longest - shortest + 1)));
  }
  return drawn;
}

/// Kernels against the same on the CPU in float64, which is tested against autograd.
class SequenceAttentionOnCuda : public ::testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_GPU(); }
  void TearDown() override { ops::cap_shared_memory(0); }

  static at::Tensor random(std::int64_t rows, std::int64_t width) {
    return at::randn({rows, width}, at::TensorOptions(at::kCUDA).dtype(GetParam()));
  }

  static at::Tensor exact(const at::Tensor& x) { return x.cpu().to(at::kDouble); }

  /// Relative norms: weights and gradients of scores are rounded to 16 bits before the second products.
  static void expect_close(const at::Tensor& actual, const at::Tensor& expected, const char* what) {
    const double tolerance = GetParam() == at::kFloat ? 1e-5 : GetParam() == at::kHalf ? 2e-3 : 1.5e-2;
    EXPECT_EQ(actual.scalar_type(), GetParam());
    EXPECT_TRUE(actual.is_contiguous());
    EXPECT_TRUE(close_in_norm(exact(actual), expected, tolerance)) << what;
  }

  /// The prefix apart from the rest: it has few rows, of large gradients.
  static void expect_rows_close(const at::Tensor& actual, const at::Tensor& expected, std::int64_t prefix,
                                const char* what) {
    expect_close(actual, expected, what);
    if (prefix > 0) expect_close(actual.narrow(0, 0, prefix), expected.narrow(0, 0, prefix), "the prefix");
  }

  static void check(const ops::Packing& packing, std::int64_t heads, std::int64_t head_width) {
    SCOPED_TRACE(::testing::Message()
                 << packing.sequences << " sequences up to " << packing.longest << " behind "
                 << packing.prefix << ", " << heads << " heads of " << head_width);
    const auto on_cuda = packing.to(at::kCUDA);
    const auto width = heads * head_width;
    const auto qkv = random(packing.rows, 3 * width), d_rows = random(packing.rows, width);
    const auto attended = ops::attend(qkv, on_cuda, heads);
    const auto d_qkv = ops::attend_backward(d_rows, qkv, attended, on_cuda, heads);
    const auto expected = ops::attend(exact(qkv), packing, heads);
    const auto d_expected = ops::attend_backward(exact(d_rows), exact(qkv), expected, packing, heads);
    expect_rows_close(attended.rows, expected.rows, packing.prefix, "rows");
    expect_rows_close(d_qkv, d_expected, packing.prefix, "the gradient of qkv");
    EXPECT_TRUE(identical(ops::attend_backward(d_rows, qkv, attended, on_cuda, heads), d_qkv));
  }

  static void check_at_ends(const ops::Packing& packing, std::int64_t heads, std::int64_t head_width) {
    SCOPED_TRACE(::testing::Message()
                 << packing.sequences << " sequences up to " << packing.longest << " behind "
                 << packing.prefix << ", " << heads << " heads of " << head_width);
    const auto on_cuda = packing.to(at::kCUDA);
    const auto width = heads * head_width;
    const auto q = random(packing.sequences, width), kv = random(packing.rows, 2 * width);
    const auto d_rows = random(packing.sequences, width);
    const auto attended = ops::attend_at_ends(q, kv, on_cuda, heads);
    const auto gradients = ops::attend_at_ends_backward(d_rows, q, kv, attended, on_cuda, heads);
    const auto expected = ops::attend_at_ends(exact(q), exact(kv), packing, heads);
    const auto d_expected =
        ops::attend_at_ends_backward(exact(d_rows), exact(q), exact(kv), expected, packing, heads);
    expect_close(attended.rows, expected.rows, "rows");
    expect_close(gradients.q, d_expected.q, "the gradient of q");
    expect_rows_close(gradients.kv, d_expected.kv, packing.prefix, "the gradient of kv");
    const auto again = ops::attend_at_ends_backward(d_rows, q, kv, attended, on_cuda, heads);
    EXPECT_TRUE(identical(again.kv, gradients.kv));
  }
};

TEST_P(SequenceAttentionOnCuda, AgreesOnPromptsOfTextTowers) {
  for (const std::int64_t heads : {8, 12, 16, 20}) {
    check(ops::pack_prompts(lengths(30, 4, 12), 5, at::kCPU), heads, 64);
  }
  check(ops::pack_prompts(lengths(1000, 4, 6), 5, at::kCPU), 8, 64);
}

TEST_P(SequenceAttentionOnCuda, AgreesAtAnyLengthOfPromptsAndPrefix) {
  for (const std::int64_t prefix : {0, 1, 8, 16, 17, 76}) {
    check(ops::pack_prompts({1}, prefix, at::kCPU), 2, 64);
    check(ops::pack_prompts(lengths(20, 1, 16), prefix, at::kCPU), 2, 64);
    check(ops::pack_prompts(lengths(9, 1, 77), prefix, at::kCPU), 2, 64);
  }
}

TEST_P(SequenceAttentionOnCuda, AgreesAtAnyHeadWidth) {
  for (const std::int64_t head_width : {4, 8, 24, 72, 80, 128, 136}) {  // some of which have no kernel
    check(ops::pack_prompts(lengths(12, 1, 40), 18, at::kCPU), 3, head_width);
    check_at_ends(ops::pack_prompts(lengths(12, 1, 40), 18, at::kCPU), 3, head_width);
    check_at_ends(ops::pack_images(2, 50, at::kCPU), 3, head_width);
  }
}

TEST_P(SequenceAttentionOnCuda, AgreesOnMorePromptsThanRunAtOnce) {
  check(ops::pack_prompts(lengths(6000, 4, 12), 5, at::kCPU), 8, 64);
}

TEST_P(SequenceAttentionOnCuda, AgreesOnDevicesOfLessSharedMemory) {
  for (const int kib : {64, 99}) {
    ops::cap_shared_memory(kib * 1024);
    check(ops::pack_prompts(lengths(50, 1, 40), 18, at::kCPU), 3, 64);
    check(ops::pack_prompts(lengths(50, 1, 40), 18, at::kCPU), 3, 128);
  }
}

TEST_P(SequenceAttentionOnCuda, AgreesAtEndsOfPromptsAndImages) {
  check_at_ends(ops::pack_prompts(lengths(1000, 4, 6), 5, at::kCPU), 8, 64);
  check_at_ends(ops::pack_prompts(lengths(10, 1, 77), 0, at::kCPU), 8, 64);
  for (const std::int64_t length : {1, 50, 197, 577})
    check_at_ends(ops::pack_images(4, length, at::kCPU), 12, 64);
}

INSTANTIATE_TEST_SUITE_P(Types, SequenceAttentionOnCuda,
                         ::testing::Values(at::kHalf, at::kBFloat16, at::kFloat),
                         [](const auto& type) { return std::string(c10::toString(type.param)); });

}  // namespace
}  // namespace clip_lora::testing
