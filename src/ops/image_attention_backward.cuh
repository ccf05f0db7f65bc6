#pragma once

#include "image_attention.cuh"

// With S the scaled scores, P = exp(S - log_sum_exp) and O = PV:
//   dV = Pᵀ dO,  dP = dO Vᵀ,  dS = P ∘ (dP - delta) with delta = the rows' sums of dO ∘ O,  dQ = dS K,  dK =
//   dSᵀ Q.
namespace clip_lora::ops {

/// From scores and dP of 16 × 8 pairs of a query and a key to P and dS; of each the query's log_sum_exp,
/// times log2(e), and delta.
__device__ __forceinline__ void differentiate(Accumulator& scores, Accumulator& d_scores,
                                              const float (&log_sum_exp)[4], const float (&delta)[4],
                                              float scale) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    scores[i] = power_of_two(fmaf(scores[i], scale, -log_sum_exp[i]));
    d_scores[i] = scores[i] * (d_scores[i] - delta[i]);
  }
}

template <int kWidth>
struct KeyGradients {
  Accumulator d_k[kWidth / 8];
  Accumulator d_v[kWidth / 8];
};

/// What a tile of 16 queries adds to the gradients of the warp's 16 keys, and dSᵀ as left operand; q and
/// d_rows are the tile's addresses in shared memory, log_sum_exp is times log2(e).
template <typename T, int kWidth>
__device__ __forceinline__ void add_query_tile(KeyGradients<kWidth>& gradients, LeftFragment& left,
                                               const LeftFragment (&k)[kWidth / 16],
                                               const LeftFragment (&v)[kWidth / 16], std::uint32_t q,
                                               std::uint32_t d_rows, const float* log_sum_exp,
                                               const float* delta, float scale) {
  Accumulator scores[2] = {};    // Sᵀ, keys by queries
  Accumulator d_scores[2] = {};  // dPᵀ, then dSᵀ
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    add_scores_step<T, kWidth>(scores, k, q + offset_for_transpose<kWidth>(), step);
    add_scores_step<T, kWidth>(d_scores, v, d_rows + offset_for_transpose<kWidth>(), step);
  }
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const int column = side * 8 + lane() % 4 * 2;
    const float2 sums = *reinterpret_cast<const float2*>(log_sum_exp + column);
    const float2 deltas = *reinterpret_cast<const float2*>(delta + column);
    differentiate(scores[side], d_scores[side], {sums.x, sums.y, sums.x, sums.y},
                  {deltas.x, deltas.y, deltas.x, deltas.y}, scale);
  }
  to_left<T>(left, scores);
  add_products<T, kWidth>(gradients.d_v, left, d_rows + offset_for_product<kWidth>());
  to_left<T>(left, d_scores);
  add_products<T, kWidth>(gradients.d_k, left, q + offset_for_product<kWidth>());
}

}  // namespace clip_lora::ops
