#pragma once

#include "clip_lora/ops/packing.hpp"
#include "clip_lora/ops/sequence_attention.hpp"

namespace clip_lora::ops {

// Attention of packed sequences in plain ATen on any device and type: sequences are gathered to N times P +
// longest rows, so it takes memory for the longest. Shapes depend on the packing's numbers alone, never on
// what a device holds. log_sum_exp stays undefined: the backward computes the weights anew.

Attended attend_padded(const at::Tensor& qkv, const Packing& packing, std::int64_t heads);
at::Tensor attend_padded_backward(const at::Tensor& d_rows, const at::Tensor& qkv, const Packing& packing,
                                  std::int64_t heads);

Attended attend_padded_at_ends(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                               std::int64_t heads);
EndGradients attend_padded_at_ends_backward(const at::Tensor& d_rows, const at::Tensor& q,
                                            const at::Tensor& kv, const Packing& packing, std::int64_t heads);

}  // namespace clip_lora::ops
