#include "sequence_attention_cuda.hpp"

#include <ATen/ATen.h>

#include <limits>

#include "end_attention_kernels.hpp"
#include "fallback.hpp"
#include "image_attention_kernels.hpp"
#include "on_cuda.hpp"
#include "packed_attention_kernels.hpp"

namespace clip_lora::ops::on_cuda {
namespace {

bool is_supported(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 || type == at::kFloat;
}

bool is_aligned(const at::Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

at::Tensor empty_float(at::IntArrayRef shape, const at::Tensor& like) {
  return at::empty(shape, like.options().dtype(at::kFloat));
}

ImageAttention image_arguments(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  ImageAttention arguments = {};
  arguments.element = element_of(qkv);
  arguments.images = packing.sequences;
  arguments.length = packing.longest;
  arguments.heads = heads;
  arguments.head_width = qkv.size(1) / 3 / heads;
  arguments.qkv = qkv.const_data_ptr();
  return arguments;
}

PackedAttention packed_arguments(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  PackedAttention arguments;
  arguments.element = element_of(qkv);
  arguments.rows = packing.rows;
  arguments.prefix = packing.prefix;
  arguments.longest = packing.longest;
  arguments.heads = heads;
  arguments.head_width = qkv.size(1) / 3 / heads;
  arguments.tiles = packing.tiles.size(0);
  arguments.tile_list = packing.tiles.const_data_ptr<std::int32_t>();
  arguments.qkv = qkv.const_data_ptr();
  return arguments;
}

EndAttention end_arguments(const at::Tensor& q, const at::Tensor& kv, const Packing& packing,
                           std::int64_t heads) {
  EndAttention arguments;
  arguments.element = element_of(q);
  arguments.sequences = packing.sequences;
  arguments.longest = packing.longest;
  arguments.prefix = packing.prefix;
  arguments.heads = heads;
  arguments.head_width = q.size(1) / heads;
  arguments.offsets = packing.offsets.const_data_ptr<std::int32_t>();
  arguments.q = q.const_data_ptr();
  arguments.kv = kv.const_data_ptr();
  return arguments;
}

bool images_fit(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  const ImageAttention arguments = image_arguments(qkv, packing, heads);
  return image_attention_fits(arguments) && image_attention_backward_fits(arguments);
}

bool packed_fits(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  return packing.causal && packing.rows > 0 && qkv.numel() <= std::numeric_limits<std::int32_t>::max() &&
         packed_attention_fits(element_of(qkv), qkv.size(1) / 3 / heads);
}

}  // namespace

bool can_attend(const at::Tensor& qkv, const Packing& packing, std::int64_t heads) {
  if (is_supported(qkv.scalar_type()) && is_aligned(qkv)) {
    const bool images = packing.is_dense() && !packing.causal;
    if (images ? images_fit(qkv, packing, heads) : packed_fits(qkv, packing, heads)) return true;
  }
  report_fallback("attention of " + std::string(c10::toString(qkv.scalar_type())) + " with heads of " +
                  std::to_string(qkv.size(1) / 3 / heads));
  return false;
}

bool can_attend_at_ends(const at::Tensor& q, std::int64_t heads) {
  const auto head_width = q.size(1) / heads;
  if (is_supported(q.scalar_type()) && is_aligned(q) && q.size(0) > 0 && end_attention_fits(head_width))
    return true;
  report_fallback("the last block's attention of " + std::string(c10::toString(q.scalar_type())) +
                  " with heads of " + std::to_string(head_width));
  return false;
}

Attended attend(const at::Tensor& any_qkv, const Packing& packing, std::int64_t heads) {
  const at::Tensor qkv = any_qkv.contiguous();
  const at::Tensor rows = at::empty({packing.rows, qkv.size(1) / 3}, qkv.options());
  const at::Tensor log_sum_exp = empty_float({packing.rows * heads}, qkv);
  if (packing.causal) {
    PackedAttention arguments = packed_arguments(qkv, packing, heads);
    arguments.attended = rows.data_ptr();
    arguments.log_sum_exp = log_sum_exp.data_ptr<float>();
    launch_packed_attention(arguments, current_stream());
  } else {
    ImageAttention arguments = image_arguments(qkv, packing, heads);
    arguments.rows = rows.data_ptr();
    arguments.log_sum_exp = log_sum_exp.data_ptr<float>();
    launch_image_attention(arguments, current_stream());
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {rows, log_sum_exp};
}

at::Tensor attend_backward(const at::Tensor& any_d_rows, const at::Tensor& any_qkv, const Attended& attended,
                           const Packing& packing, std::int64_t heads) {
  const at::Tensor qkv = any_qkv.contiguous(), d_rows = any_d_rows.contiguous();
  at::Tensor d_qkv = at::empty_like(qkv);
  at::Tensor prefix_sums;
  if (packing.causal) {
    PackedAttention arguments = packed_arguments(qkv, packing, heads);
    arguments.attended = attended.rows.data_ptr();
    arguments.log_sum_exp = attended.log_sum_exp.data_ptr<float>();
    arguments.d_rows = d_rows.const_data_ptr();
    arguments.d_qkv = d_qkv.data_ptr();
    if (packing.prefix > 0) {
      prefix_sums =
          empty_float({packed_attention_prefix_sums(arguments), packing.prefix, 2 * d_rows.size(1)}, qkv);
      arguments.prefix_sums = prefix_sums.data_ptr<float>();
    }
    launch_packed_attention_backward(arguments, current_stream());
  } else {
    ImageAttention arguments = image_arguments(qkv, packing, heads);
    arguments.rows = attended.rows.data_ptr();
    arguments.log_sum_exp = attended.log_sum_exp.data_ptr<float>();
    arguments.d_rows = d_rows.const_data_ptr();
    arguments.d_qkv = d_qkv.data_ptr();
    launch_image_attention_backward(arguments, current_stream());
  }
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return d_qkv;
}

Attended attend_at_ends(const at::Tensor& any_q, const at::Tensor& any_kv, const Packing& packing,
                        std::int64_t heads) {
  const at::Tensor q = any_q.contiguous(), kv = any_kv.contiguous();
  const at::Tensor rows = at::empty_like(q), log_sum_exp = empty_float({packing.sequences, heads}, q);
  EndAttention arguments = end_arguments(q, kv, packing, heads);
  arguments.attended = rows.data_ptr();
  arguments.log_sum_exp = log_sum_exp.data_ptr<float>();
  launch_end_attention(arguments, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return {rows, log_sum_exp};
}

EndGradients attend_at_ends_backward(const at::Tensor& any_d_rows, const at::Tensor& any_q,
                                     const at::Tensor& any_kv, const Attended& attended,
                                     const Packing& packing, std::int64_t heads) {
  const at::Tensor q = any_q.contiguous(), kv = any_kv.contiguous(), d_rows = any_d_rows.contiguous();
  EndGradients gradients = {at::empty_like(q), at::empty_like(kv)};
  const at::Tensor prefix_weights = empty_float({2, heads, packing.prefix, packing.sequences}, q);
  EndAttention arguments = end_arguments(q, kv, packing, heads);
  arguments.attended = attended.rows.data_ptr();
  arguments.log_sum_exp = attended.log_sum_exp.data_ptr<float>();
  arguments.d_rows = d_rows.const_data_ptr();
  arguments.d_q = gradients.q.data_ptr();
  arguments.d_kv = gradients.kv.data_ptr();
  arguments.prefix_weights = prefix_weights.data_ptr<float>();
  launch_end_attention_backward(arguments, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return gradients;
}

}  // namespace clip_lora::ops::on_cuda
