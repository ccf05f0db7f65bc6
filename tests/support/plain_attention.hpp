#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <vector>

#include "clip_lora/ops/packing.hpp"

namespace clip_lora::testing {

/// Attention of q [Q, D] to k and v [K, D] where `hidden` [Q, K] is false, head by head.
inline at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& hidden, std::int64_t heads) {
  std::vector<at::Tensor> attended;
  const auto width = q.size(1) / heads;
  for (std::int64_t head = 0; head < heads; ++head) {
    const auto of_head = [&](const at::Tensor& x) { return x.narrow(1, head * width, width); };
    const auto scores = of_head(q).matmul(of_head(k).t()) / std::sqrt(static_cast<double>(width));
    const auto weights = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity()).softmax(1);
    attended.push_back(weights.matmul(of_head(v)));
  }
  return at::cat(attended, 1);
}

/// The rows of sequence i, its prefix first.
inline at::Tensor rows_of_sequence(const ops::Packing& packing, std::int64_t i) {
  const auto offsets = packing.offsets.cpu();
  return at::cat({at::arange(packing.prefix),
                  at::arange(offsets[i].item<std::int64_t>(), offsets[i + 1].item<std::int64_t>())});
}

/// What ops::attend is to give, one sequence at a time on the CPU. Differentiable. qkv: [T, 3D].
inline at::Tensor plain_attend(const at::Tensor& qkv, const ops::Packing& packing, std::int64_t heads) {
  std::vector<at::Tensor> attended;
  const auto attend = [&](const at::Tensor& rows, std::int64_t first_query) {
    const auto x = qkv.index_select(0, rows).chunk(3, 1);
    auto hidden = at::zeros({rows.size(0), rows.size(0)}, at::kBool);
    if (packing.causal) hidden = at::ones_like(hidden).triu(1);
    attended.push_back(plain_attention(x[0], x[1], x[2], hidden, heads).slice(0, first_query));
  };
  if (packing.prefix > 0) attend(at::arange(packing.prefix), 0);
  for (std::int64_t i = 0; i < packing.sequences; ++i) attend(rows_of_sequence(packing, i), packing.prefix);
  return at::cat(attended);
}

/// The same for ops::attend_at_ends. q: [N, D], kv: [T, 2D].
inline at::Tensor plain_attend_at_ends(const at::Tensor& q, const at::Tensor& kv, const ops::Packing& packing,
                                       std::int64_t heads) {
  std::vector<at::Tensor> attended;
  for (std::int64_t i = 0; i < packing.sequences; ++i) {
    const auto x = kv.index_select(0, rows_of_sequence(packing, i)).chunk(2, 1);
    const auto nothing = at::zeros({1, x[0].size(0)}, at::kBool);
    attended.push_back(plain_attention(q.narrow(0, i, 1), x[0], x[1], nothing, heads));
  }
  return at::cat(attended);
}

}  // namespace clip_lora::testing
