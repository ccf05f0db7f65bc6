#include "padded_attention.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace clip_lora::ops {
namespace {

/// Own rows of each sequence, padded to the longest.
struct PaddedRows {
  at::Tensor sources;  ///< [N · longest] int64: padding repeats the sequence's last row
  at::Tensor targets;  ///< [N · longest] int64: padding goes to row T
  at::Tensor present;  ///< [N, longest] bool
};

PaddedRows padded_rows(const Packing& packing) {
  const at::Tensor starts = packing.offsets.slice(0, 0, -1).to(at::kLong).unsqueeze(1);  // [N, 1]
  const at::Tensor ends = packing.offsets.slice(0, 1).to(at::kLong).unsqueeze(1);        // [N, 1]
  const at::Tensor rows = starts + at::arange(packing.longest, starts.options());
  const at::Tensor present = rows < ends;
  return {at::minimum(rows, ends - 1).flatten(), at::where(present, rows, packing.rows).flatten(), present};
}

/// [rows, D] → [N, H, rows / N, D / H]
at::Tensor to_heads(const at::Tensor& rows, std::int64_t sequences, std::int64_t heads) {
  return rows.reshape({sequences, -1, heads, rows.size(1) / heads}).transpose(1, 2);
}

/// The reverse.
at::Tensor to_rows(const at::Tensor& x) { return x.transpose(1, 2).flatten(2).flatten(0, 1); }

struct HeadGradients {
  at::Tensor q, k, v;
};

/// Attention of queries [N, H, Q, d] to keys [N, H, K, d] where `hidden`, which broadcasts to [N, H, Q, K],
/// is false.
struct Heads {
  at::Tensor q, k, v, hidden;

  at::Tensor weights() const {
    const at::Tensor scores = at::matmul(q, k.transpose(2, 3)) * scale();
    return scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity()).softmax(-1);
  }
  at::Tensor attended() const { return at::matmul(weights(), v); }

  HeadGradients backward(const at::Tensor& d_attended) const {
    const at::Tensor weight = weights();
    const at::Tensor d_weight = at::matmul(d_attended, v.transpose(2, 3));
    const at::Tensor delta = (d_weight * weight).sum(-1, /*keepdim=*/true);
    const at::Tensor d_score = weight * (d_weight - delta) * scale();
    return {at::matmul(d_score, k), at::matmul(d_score.transpose(2, 3), q),
            at::matmul(weight.transpose(2, 3), d_attended)};
  }

 private:
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }
};

/// Keys or values of every sequence: the prefix's, then its own. rows: [T, D]. Returns [N, H, P + longest,
/// d].
at::Tensor padded_keys(const at::Tensor& rows, const PaddedRows& padded, const Packing& packing,
                       std::int64_t heads) {
  at::Tensor own = to_heads(rows.index_select(0, padded.sources), packing.sequences, heads);
  if (packing.prefix == 0) return own;
  const at::Tensor prefix = to_heads(rows.narrow(0, 0, packing.prefix), 1, heads);
  return at::cat({prefix.expand({packing.sequences, -1, -1, -1}), own}, 2);
}

/// Writes rows of a gradient of padded keys to where they came from, the prefix's summed over sequences. to:
/// [T + 1, D].
void scatter_keys(const at::Tensor& to, const at::Tensor& gradient, const PaddedRows& padded,
                  const Packing& packing) {
  if (packing.prefix > 0) {
    const at::Tensor sum = gradient.narrow(2, 0, packing.prefix)
                               .to(at::promote_types(gradient.scalar_type(), at::kFloat))
                               .sum(0, /*keepdim=*/true);
    to.narrow(0, 0, packing.prefix).copy_(to_rows(sum));
  }
  to.index_copy_(0, padded.targets, to_rows(gradient.narrow(2, packing.prefix, packing.longest)));
}

/// Where keys are padding: [N, 1, 1, P + longest].
at::Tensor absent_keys(const PaddedRows& padded, const Packing& packing) {
  return at::constant_pad_nd(padded.present.logical_not(), {packing.prefix, 0}).unsqueeze(1).unsqueeze(1);
}

/// Where a row is later than a query: [queries, before + queries], with `before` rows ahead of all queries.
at::Tensor later_keys(std::int64_t queries, std::int64_t before, const at::Tensor& like) {
  return at::ones({queries, before + queries}, like.options().dtype(at::kBool)).triu(before + 1);
}

Heads own_heads(const at::Tensor& qkv, const PaddedRows& padded, const Packing& packing, std::int64_t heads) {
  const auto thirds = qkv.chunk(3, 1);
  at::Tensor hidden = absent_keys(padded, packing);
  if (packing.causal) hidden = hidden.logical_or(later_keys(packing.longest, packing.prefix, qkv));
  return {to_heads(thirds[0].index_select(0, padded.sources), packing.sequences, heads),
          padded_keys(thirds[1], padded, packing, heads), padded_keys(thirds[2], padded, packing, heads),
          hidden};
}

Heads prefix_heads(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  const auto thirds = qkv.narrow(0, 0, packing.prefix).chunk(3, 1);
  return {to_heads(thirds[0], 1, heads), to_heads(thirds[1], 1, heads), to_heads(thirds[2], 1, heads),
          later_keys(packing.prefix, 0, qkv)};
}

Heads end_heads(const at::Tensor& q, const at::Tensor& kv, const PaddedRows& padded, const Packing& packing,
                std::int64_t heads) {
  const auto halves = kv.chunk(2, 1);
  return {to_heads(q, packing.sequences, heads), padded_keys(halves[0], padded, packing, heads),
          padded_keys(halves[1], padded, packing, heads), absent_keys(padded, packing)};
}

/// Rows to write to, and one more that padding goes to.
at::Tensor empty_rows(const Packing& packing, std::int64_t width, const at::Tensor& like) {
  return at::empty({packing.rows + 1, width}, like.options());
}

}  // namespace

Attended attend_padded(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  const PaddedRows padded = padded_rows(packing);
  const at::Tensor rows = empty_rows(packing, qkv.size(1) / 3, qkv);
  rows.index_copy_(0, padded.targets, to_rows(own_heads(qkv, padded, packing, heads).attended()));
  if (packing.prefix > 0) {
    rows.narrow(0, 0, packing.prefix).copy_(to_rows(prefix_heads(qkv, packing, heads).attended()));
  }
  return {rows.narrow(0, 0, packing.rows), {}};
}

at::Tensor attend_padded_backward(const at::Tensor& d_rows, const at::Tensor& qkv, const Packing& packing,
                                  std::int64_t heads) {
  const PaddedRows padded = padded_rows(packing);
  const at::Tensor d_qkv = empty_rows(packing, qkv.size(1), qkv);
  const auto thirds = d_qkv.chunk(3, 1);
  const at::Tensor d_own =
      d_rows.index_select(0, padded.sources)
          .masked_fill_(padded.present.logical_not().view({-1, 1}), 0.0);  // padding gives nothing
  const auto own = own_heads(qkv, padded, packing, heads).backward(to_heads(d_own, packing.sequences, heads));
  thirds[0].index_copy_(0, padded.targets, to_rows(own.q));
  scatter_keys(thirds[1], own.k, padded, packing);
  scatter_keys(thirds[2], own.v, padded, packing);
  if (packing.prefix > 0) {
    const auto prefix =
        prefix_heads(qkv, packing, heads).backward(to_heads(d_rows.narrow(0, 0, packing.prefix), 1, heads));
    thirds[0].narrow(0, 0, packing.prefix).copy_(to_rows(prefix.q));
    thirds[1].narrow(0, 0, packing.prefix).add_(to_rows(prefix.k));
    thirds[2].narrow(0, 0, packing.prefix).add_(to_rows(prefix.v));
  }
  return d_qkv.narrow(0, 0, packing.rows);
}

Attended attend_padded_at_ends(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                               std::int64_t heads) {
  return {to_rows(end_heads(q, kv, padded_rows(packing), packing, heads).attended()), {}};
}

EndGradients attend_padded_at_ends_backward(const at::Tensor& d_rows, const at::Tensor& q,
                                            const at::Tensor& kv, const Packing& packing,
                                            std::int64_t heads) {
  const PaddedRows padded = padded_rows(packing);
  const auto gradients =
      end_heads(q, kv, padded, packing, heads).backward(to_heads(d_rows, packing.sequences, heads));
  const at::Tensor d_kv = empty_rows(packing, kv.size(1), kv);
  const auto halves = d_kv.chunk(2, 1);
  scatter_keys(halves[0], gradients.k, padded, packing);
  scatter_keys(halves[1], gradients.v, padded, packing);
  return {to_rows(gradients.q), d_kv.narrow(0, 0, packing.rows)};
}

}  // namespace clip_lora::ops
