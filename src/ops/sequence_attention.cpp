#include "clip_lora/ops/sequence_attention.hpp"

#include <ATen/ATen.h>

#include "library_attention.hpp"
#include "packed_attention_cpu.hpp"
#include "padded_attention.hpp"

#ifdef CLIP_LORA_WITH_CUDA
#include "sequence_attention_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

bool is_images(const Packing& packing) { return packing.is_dense() && !packing.causal; }

/// LibTorch's fused attention has no float64 on CUDA devices.
bool library_takes(const at::Tensor& qkv) { return qkv.is_cpu() || qkv.scalar_type() != at::kDouble; }

/// The type that the CPU computes in.
at::ScalarType cpu_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

Attended to_type(const Attended& attended, at::ScalarType type) {
  return {attended.rows.to(type), attended.log_sum_exp};
}

HeadRows thirds_of(const at::Tensor& qkv) {
  const auto thirds = qkv.chunk(3, 1);
  return {thirds[0], thirds[1], thirds[2]};
}

HeadRows rows_at_ends(const at::Tensor& q, const at::Tensor& kv) {
  const auto halves = kv.chunk(2, 1);
  return {q, halves[0], halves[1]};
}

void check(const at::Tensor& rows, std::int64_t expected_rows, std::int64_t parts, std::int64_t heads) {
  TORCH_CHECK(rows.dim() == 2 && rows.size(0) == expected_rows && rows.size(1) % (parts * heads) == 0,
              "attention: expected ", expected_rows, " rows of ", parts, " parts for ", heads, " heads, got ",
              rows.sizes());
}

}  // namespace

Attended attend(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  check(qkv, packing.rows, 3, heads);
#ifdef CLIP_LORA_WITH_CUDA
  if (qkv.is_cuda() && on_cuda::can_attend(qkv, packing, heads)) return on_cuda::attend(qkv, packing, heads);
#endif
  if (is_images(packing) && library_takes(qkv)) return attend_by_library(qkv, packing.sequences, heads);
  if (!qkv.is_cpu()) return attend_padded(qkv, packing, heads);
  return to_type(attend_on_cpu(thirds_of(qkv.to(cpu_type(qkv))), Query::kEveryRow, packing, heads),
                 qkv.scalar_type());
}

at::Tensor attend_backward(const at::Tensor& d_rows, const at::Tensor& qkv, const Attended& attended,
                           const Packing& packing, std::int64_t heads) {
  check(qkv, packing.rows, 3, heads);
  check(d_rows, packing.rows, 1, heads);
#ifdef CLIP_LORA_WITH_CUDA
  if (qkv.is_cuda() && on_cuda::can_attend(qkv, packing, heads)) {
    return on_cuda::attend_backward(d_rows, qkv, attended, packing, heads);
  }
#endif
  if (is_images(packing) && library_takes(qkv)) {
    return attend_by_library_backward(d_rows, qkv, attended, packing.sequences, heads);
  }
  if (!qkv.is_cpu()) return attend_padded_backward(d_rows, qkv, packing, heads);
  const auto type = cpu_type(qkv);
  const at::Tensor d_qkv = at::empty(qkv.sizes(), qkv.options().dtype(type));
  attend_on_cpu_backward(d_rows.to(type), thirds_of(qkv.to(type)), to_type(attended, type), Query::kEveryRow,
                         packing, heads, thirds_of(d_qkv));
  return d_qkv.to(qkv.scalar_type());
}

Attended attend_at_ends(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                        std::int64_t heads) {
  check(q, packing.sequences, 1, heads);
  check(kv, packing.rows, 2, heads);
#ifdef CLIP_LORA_WITH_CUDA
  if (q.is_cuda() && on_cuda::can_attend_at_ends(q, heads))
    return on_cuda::attend_at_ends(q, kv, packing, heads);
#endif
  if (!q.is_cpu()) return attend_padded_at_ends(q, kv, packing, heads);
  const auto type = cpu_type(q);
  return to_type(attend_on_cpu(rows_at_ends(q.to(type), kv.to(type)), Query::kEnds, packing, heads),
                 q.scalar_type());
}

EndGradients attend_at_ends_backward(const at::Tensor& d_rows, const at::Tensor& q, const at::Tensor& kv,
                                     const Attended& attended, const Packing& packing, std::int64_t heads) {
  check(q, packing.sequences, 1, heads);
  check(d_rows, packing.sequences, 1, heads);
  check(kv, packing.rows, 2, heads);
#ifdef CLIP_LORA_WITH_CUDA
  if (q.is_cuda() && on_cuda::can_attend_at_ends(q, heads)) {
    return on_cuda::attend_at_ends_backward(d_rows, q, kv, attended, packing, heads);
  }
#endif
  if (!q.is_cpu()) return attend_padded_at_ends_backward(d_rows, q, kv, packing, heads);
  const auto type = cpu_type(q);
  const at::Tensor d_q = at::empty(q.sizes(), q.options().dtype(type));
  const at::Tensor d_kv = at::empty(kv.sizes(), kv.options().dtype(type));
  attend_on_cpu_backward(d_rows.to(type), rows_at_ends(q.to(type), kv.to(type)), to_type(attended, type),
                         Query::kEnds, packing, heads, rows_at_ends(d_q, d_kv));
  return {d_q.to(q.scalar_type()), d_kv.to(q.scalar_type())};
}

}  // namespace clip_lora::ops
