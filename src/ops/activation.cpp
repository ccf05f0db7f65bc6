#include "clip_lora/ops/activation.hpp"

#include <ATen/ATen.h>

#include <utility>

#ifdef CLIP_LORA_WITH_CUDA
#include "activation_kernels.hpp"
#include "fallback.hpp"
#include "on_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

constexpr double kSlope = 1.702;

at::Tensor at_least_float32(const at::Tensor& x) {
  return x.to(at::promote_types(x.scalar_type(), at::kFloat));
}

// Quick GELU is silu(1.702 h) / 1.702. In place after its first pass: on a CPU, a new [T, M] costs more than
// the arithmetic.
at::Tensor gelu_definition(const at::Tensor& h, Gelu kind) {
  const at::Tensor wide = at_least_float32(h);
  if (kind == Gelu::kExact) return at::gelu(wide).to(h.scalar_type());
  at::Tensor scaled = at::mul(wide, kSlope);
  return at::silu_(scaled).mul_(1.0 / kSlope).to(h.scalar_type());
}

at::Tensor gelu_backward_definition(const at::Tensor& d_out, const at::Tensor& h, Gelu kind) {
  const at::Tensor wide = at_least_float32(h);
  at::Tensor gradient = at_least_float32(d_out);  // d_out itself where that is wide enough
  if (kind == Gelu::kExact) {
    at::gelu_backward_out(gradient, gradient, wide);
  } else {
    at::silu_backward_out(gradient, gradient, at::mul(wide, kSlope));
  }
  return gradient.is_same(d_out) ? d_out : d_out.copy_(gradient);
}

}  // namespace

#ifdef CLIP_LORA_WITH_CUDA
namespace on_cuda {
namespace {

bool fits(const at::Tensor& x) {
  const bool fitting =
      x.scalar_type() != at::kDouble && reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
  if (!fitting) report_fallback("gelu: the kernel wants 16-byte aligned float16, bfloat16 or float32");
  return fitting && x.numel() > 0;
}

at::Tensor gelu(const at::Tensor& h, Gelu kind) {
  at::Tensor out = at::empty_like(h);
  launch_gelu(h.const_data_ptr(), out.mutable_data_ptr(), h.numel(), kind == Gelu::kQuick, element_of(h),
              current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

at::Tensor gelu_backward_(at::Tensor d_out, const at::Tensor& h, Gelu kind) {
  launch_gelu_backward(d_out.mutable_data_ptr(), h.const_data_ptr(), h.numel(), kind == Gelu::kQuick,
                       element_of(h), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return d_out;
}

}  // namespace
}  // namespace on_cuda
#endif

at::Tensor gelu(const at::Tensor& h, Gelu kind) {
#ifdef CLIP_LORA_WITH_CUDA
  if (const at::Tensor rows = h.contiguous(); h.is_cuda() && on_cuda::fits(rows))
    return on_cuda::gelu(rows, kind);
#endif
  return gelu_definition(h, kind);
}

at::Tensor gelu_backward_(at::Tensor d_out, const at::Tensor& h, Gelu kind) {
  TORCH_CHECK(d_out.sizes() == h.sizes() && d_out.scalar_type() == h.scalar_type(), "gelu_backward_: d_out ",
              d_out.sizes(), " ", d_out.scalar_type(), " does not fit h ", h.sizes(), " ", h.scalar_type());
  TORCH_CHECK(d_out.is_contiguous() && h.is_contiguous(), "gelu_backward_: expected contiguous tensors");
#ifdef CLIP_LORA_WITH_CUDA
  if (h.is_cuda() && on_cuda::fits(h) && on_cuda::fits(d_out))
    return on_cuda::gelu_backward_(std::move(d_out), h, kind);
#endif
  return gelu_backward_definition(d_out, h, kind);
}

}  // namespace clip_lora::ops
