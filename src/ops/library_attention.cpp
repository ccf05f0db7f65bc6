#include "library_attention.hpp"

#include <ATen/ATen.h>

#include <cmath>

#ifdef CLIP_LORA_WITH_CUDA
#include "device_limits.hpp"
#endif

namespace clip_lora::ops {
namespace {

/// [B·L, D] → [B, H, L, D / H], a view.
at::Tensor as_heads(const at::Tensor& rows, std::int64_t sequences, std::int64_t heads) {
  return rows.unflatten(1, {heads, -1}).unflatten(0, {sequences, -1}).transpose(1, 2);
}

/// The reverse, a view of what was made in the order of rows.
at::Tensor as_rows(const at::Tensor& x) { return x.transpose(1, 2).flatten(2).flatten(0, 1).contiguous(); }

struct PackedHeads {
  at::Tensor q, k, v;
};

PackedHeads heads_of(const at::Tensor& qkv, std::int64_t sequences, std::int64_t heads) {
  const auto thirds = qkv.chunk(3, 1);
  return {as_heads(thirds[0], sequences, heads), as_heads(thirds[1], sequences, heads),
          as_heads(thirds[2], sequences, heads)};
}

bool cudnn_takes(const at::Tensor& qkv) {
#ifdef CLIP_LORA_WITH_CUDA
  const bool half = qkv.scalar_type() == at::kHalf || qkv.scalar_type() == at::kBFloat16;
  return half && device_limits().compute_capability >= 80;
#else
  return qkv.is_cuda() && false;
#endif
}

double scale_of(const at::Tensor& q) { return 1.0 / std::sqrt(static_cast<double>(q.size(3))); }

/// exp(q kᵀ / √d − log_sum_exp), [B, H, L, L].
at::Tensor probabilities(const at::Tensor& q, const at::Tensor& k, const at::Tensor& log_sum_exp) {
  return (at::matmul(q * scale_of(q), k.transpose(2, 3)) - log_sum_exp.unsqueeze(3)).exp_();
}

// For float32 on CUDA: LibTorch's own kernels add up gradients in an order that varies.
Attended attend_by_products(const PackedHeads& x) {
  const at::Tensor log_sum_exp =
      at::matmul(x.q * scale_of(x.q), x.k.transpose(2, 3)).logsumexp(3);  // [B, H, L]
  return {as_rows(at::matmul(probabilities(x.q, x.k, log_sum_exp), x.v)), log_sum_exp};
}

PackedHeads attend_by_products_backward(const at::Tensor& d_out, const PackedHeads& x, const at::Tensor& out,
                                        const at::Tensor& log_sum_exp) {
  const at::Tensor p = probabilities(x.q, x.k, log_sum_exp);
  const at::Tensor delta = (d_out * out).sum(3, /*keepdim=*/true);
  const at::Tensor d_scores = (at::matmul(d_out, x.v.transpose(2, 3)) - delta).mul_(p).mul_(scale_of(x.q));
  return {at::matmul(d_scores, x.k), at::matmul(d_scores.transpose(2, 3), x.q),
          at::matmul(p.transpose(2, 3), d_out)};
}

constexpr double kNoDropout = 0.0;
constexpr bool kCausal = false;

}  // namespace

Attended attend_by_library(const at::Tensor& qkv, std::int64_t sequences, std::int64_t heads) {
  const auto [q, k, v] = heads_of(qkv, sequences, heads);
  if (qkv.is_cpu()) {
    const auto [rows, log_sum_exp] =
        at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, kNoDropout, kCausal);
    return {as_rows(rows), log_sum_exp};
  }
  if (cudnn_takes(qkv)) {
    const auto results =
        at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/{},
                                                /*compute_log_sumexp=*/true, kNoDropout, kCausal);
    return {as_rows(std::get<0>(results)), std::get<1>(results)};
  }
  return attend_by_products({q, k, v});
}

at::Tensor attend_by_library_backward(const at::Tensor& d_rows, const at::Tensor& qkv,
                                      const Attended& attended, std::int64_t sequences, std::int64_t heads) {
  const auto [q, k, v] = heads_of(qkv, sequences, heads);
  const at::Tensor d_out = as_heads(d_rows, sequences, heads),
                   out = as_heads(attended.rows, sequences, heads);
  const at::Tensor& log_sum_exp = attended.log_sum_exp;
  PackedHeads gradients;
  if (qkv.is_cpu()) {
    std::tie(gradients.q, gradients.k, gradients.v) =
        at::_scaled_dot_product_flash_attention_for_cpu_backward(d_out, q, k, v, out, log_sum_exp, kNoDropout,
                                                                 kCausal);
  } else if (cudnn_takes(qkv)) {
    const at::Tensor no_seed =
        at::zeros({}, qkv.options().dtype(at::kLong));  // for dropout, which there is none of
    const auto length = q.size(2);
    std::tie(gradients.q, gradients.k, gradients.v) = at::_scaled_dot_product_cudnn_attention_backward(
        d_out, q, k, v, out, log_sum_exp, no_seed, no_seed, /*attn_bias=*/{}, /*cum_seq_q=*/{},
        /*cum_seq_k=*/{}, length, length, kNoDropout, kCausal);
  } else {
    gradients = attend_by_products_backward(d_out, {q, k, v}, out, log_sum_exp);
  }
  at::Tensor d_qkv = at::empty_like(qkv);
  const auto [d_q, d_k, d_v] = heads_of(d_qkv, sequences, heads);
  d_q.copy_(gradients.q);
  d_k.copy_(gradients.k);
  d_v.copy_(gradients.v);
  return d_qkv;
}

}  // namespace clip_lora::ops
