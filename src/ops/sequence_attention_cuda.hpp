#pragma once

#include "clip_lora/ops/packing.hpp"
#include "clip_lora/ops/sequence_attention.hpp"

namespace clip_lora::ops::on_cuda {

/// Whether there is a kernel for this; says by report_fallback if not.
bool can_attend(const at::Tensor& qkv, const Packing& packing, std::int64_t heads);
bool can_attend_at_ends(const at::Tensor& q, std::int64_t heads);

/// The functions of ops:: by kernels of our own.
Attended attend(const at::Tensor& qkv, const Packing& packing, std::int64_t heads);
at::Tensor attend_backward(const at::Tensor& d_rows, const at::Tensor& qkv, const Attended& attended,
                           const Packing& packing, std::int64_t heads);
Attended attend_at_ends(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                        std::int64_t heads);
EndGradients attend_at_ends_backward(const at::Tensor& d_rows, const at::Tensor& q, const at::Tensor& kv,
                                     const Attended& attended, const Packing& packing, std::int64_t heads);

}  // namespace clip_lora::ops::on_cuda
