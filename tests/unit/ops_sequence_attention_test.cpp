#include <gtest/gtest.h>
#include <torch/torch.h>

#include "clip_lora/ops/sequence_attention.hpp"
#include "ops/padded_attention.hpp"
#include "support/close.hpp"
#include "support/plain_attention.hpp"

namespace clip_lora::testing {
namespace {

constexpr std::int64_t kSequenceHeads = 3;
constexpr std::int64_t kSequenceWidth =
    kSequenceHeads * 20;  // neither the heads nor their width are powers of two
// Sums of some dozens of terms, in another order.
constexpr double kDoubleTolerance = 1e-12, kFloatTolerance = 1e-5;

std::vector<ops::Packing> packings() {
  return {
      ops::pack_images(3, 7, at::kCPU),
      ops::pack_images(1, 40, at::kCPU),
      ops::pack_prompts({2, 5, 1, 9, 4}, 3, at::kCPU),
      ops::pack_prompts({4}, 2, at::kCPU),
      ops::pack_prompts({2, 5, 1}, 0, at::kCPU),
      ops::pack_prompts({3, 3, 3, 3}, 0, at::kCPU),
      ops::pack_prompts(std::vector<std::int64_t>(100, 2), 5, at::kCPU),  // more than a group of sequences
      ops::pack_prompts({1, 21, 35}, 19, at::kCPU)};
}

std::string describe(const ops::Packing& packing) {
  return std::to_string(packing.sequences) + " sequences up to " + std::to_string(packing.longest) +
         " behind " + std::to_string(packing.prefix);
}

at::Tensor random(std::int64_t rows, std::int64_t width) { return at::randn({rows, width}, at::kDouble); }

/// Rows and the gradients of all inputs.
using Results = std::vector<at::Tensor>;

void expect_close(const Results& actual, const Results& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t i = 0; i < actual.size(); ++i) {
    EXPECT_TRUE(close(actual[i].to(at::kDouble), expected[i], tolerance)) << "result " << i;
  }
}

Results by_autograd(const at::Tensor& rows, const at::Tensor& d_rows, const std::vector<at::Tensor>& inputs) {
  auto results = torch::autograd::grad({rows}, inputs, {d_rows});
  results.insert(results.begin(), rows.detach());
  return results;
}

Results attend(const at::Tensor& qkv, const at::Tensor& d_rows, const ops::Packing& packing) {
  const auto attended = ops::attend(qkv, packing, kSequenceHeads);
  return {attended.rows, ops::attend_backward(d_rows, qkv, attended, packing, kSequenceHeads)};
}

Results attend_at_ends(const at::Tensor& q, const at::Tensor& kv, const at::Tensor& d_rows,
                       const ops::Packing& packing) {
  const auto attended = ops::attend_at_ends(q, kv, packing, kSequenceHeads);
  const auto gradients = ops::attend_at_ends_backward(d_rows, q, kv, attended, packing, kSequenceHeads);
  return {attended.rows, gradients.q, gradients.kv};
}

TEST(SequenceAttention, IsPlainAttentionOfEachSequence) {
  for (const auto& packing : packings()) {
    SCOPED_TRACE(describe(packing));
    const auto qkv = random(packing.rows, 3 * kSequenceWidth).requires_grad_(),
               d_rows = random(packing.rows, kSequenceWidth);
    const auto expected = by_autograd(plain_attend(qkv, packing, kSequenceHeads), d_rows, {qkv});
    const auto x = qkv.detach();
    expect_close(attend(x, d_rows, packing), expected, kDoubleTolerance);
    expect_close(attend(x.to(at::kFloat), d_rows.to(at::kFloat), packing), expected, kFloatTolerance);
  }
}

TEST(SequenceAttention, AtEndsIsPlainAttentionOfOneRowOfEachSequence) {
  for (const auto& packing : packings()) {
    SCOPED_TRACE(describe(packing));
    const auto q = random(packing.sequences, kSequenceWidth).requires_grad_();
    const auto kv = random(packing.rows, 2 * kSequenceWidth).requires_grad_();
    const auto d_rows = random(packing.sequences, kSequenceWidth);
    const auto expected = by_autograd(plain_attend_at_ends(q, kv, packing, kSequenceHeads), d_rows, {q, kv});
    expect_close(attend_at_ends(q.detach(), kv.detach(), d_rows, packing), expected, kDoubleTolerance);
    expect_close(
        attend_at_ends(q.detach().to(at::kFloat), kv.detach().to(at::kFloat), d_rows.to(at::kFloat), packing),
        expected, kFloatTolerance);
  }
}

TEST(SequenceAttention, PaddedToTheLongestIsTheSame) {
  for (const auto& packing : packings()) {
    SCOPED_TRACE(describe(packing));
    const auto qkv = random(packing.rows, 3 * kSequenceWidth), d_rows = random(packing.rows, kSequenceWidth);
    const Results padded = {ops::attend_padded(qkv, packing, kSequenceHeads).rows,
                            ops::attend_padded_backward(d_rows, qkv, packing, kSequenceHeads)};
    expect_close(padded, attend(qkv, d_rows, packing), kDoubleTolerance);

    const auto q = random(packing.sequences, kSequenceWidth), kv = random(packing.rows, 2 * kSequenceWidth);
    const auto d_ends = random(packing.sequences, kSequenceWidth);
    const auto gradients = ops::attend_padded_at_ends_backward(d_ends, q, kv, packing, kSequenceHeads);
    expect_close({ops::attend_padded_at_ends(q, kv, packing, kSequenceHeads).rows, gradients.q, gradients.kv},
                 attend_at_ends(q, kv, d_ends, packing), kDoubleTolerance);
  }
}

TEST(SequenceAttention, ASharedPrefixGivesWhatPromptsWithTheirOwnCopyGive) {
  const std::int64_t prefix = 3;
  const std::vector<std::int64_t> own = {2, 5, 1};
  const auto shared = ops::pack_prompts(own, prefix, at::kCPU);
  const auto whole = ops::pack_prompts({5, 8, 4}, 0, at::kCPU);
  const auto qkv = random(shared.rows, 3 * kSequenceWidth);
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < shared.sequences; ++i) rows.push_back(rows_of_sequence(shared, i));
  const auto copies = at::cat(rows);  // where each row of `whole` lies in the shared packing
  const auto expected = ops::attend(qkv.index_select(0, copies), whole, kSequenceHeads).rows;
  EXPECT_TRUE(close(ops::attend(qkv, shared, kSequenceHeads).rows.index_select(0, copies), expected,
                    kDoubleTolerance));
}

TEST(SequenceAttention, GivesTheSameBitsOnAnyNumberOfThreads) {
  const auto packing = ops::pack_prompts(std::vector<std::int64_t>(70, 3), 4, at::kCPU);
  const auto qkv = random(packing.rows, 3 * kSequenceWidth), d_rows = random(packing.rows, kSequenceWidth);
  const auto threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto alone = attend(qkv, d_rows, packing);
  at::set_num_threads(3);
  const auto together = attend(qkv, d_rows, packing);
  at::set_num_threads(threads);
  for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_TRUE(identical(together[i], alone[i]));
}

}  // namespace
}  // namespace clip_lora::testing
