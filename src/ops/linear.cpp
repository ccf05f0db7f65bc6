#include "clip_lora/ops/linear.hpp"

#include <ATen/ATen.h>

#include <atomic>

#ifdef CLIP_LORA_WITH_CUDA
#include "linear_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

// Multiplications of a product that a CPU sums in float64, because it costs nothing there: AdamW makes
// rounding visible where a gradient is near its eps.
constexpr std::int64_t kSmallProduct = std::int64_t{1} << 24;

std::atomic<bool> tf32_allowed = false;

at::Tensor linear_definition(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& residual) {
  if (x.is_cpu() && x.size(0) * weight.numel() <= kSmallProduct) {
    at::Tensor y = at::mm(x.to(at::kDouble), weight.t().to(at::kDouble));
    if (bias.defined()) y.add_(bias);
    if (residual.defined()) y.add_(residual);
    return y.to(x.scalar_type());
  }
  // The residual comes last: a sum rounds at the size of what it starts from.
  at::Tensor y = bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
  return residual.defined() ? y.add_(residual) : y;
}

/// Whether `addend`, if there is one, can be added to products of x, `columns` wide.
bool is_addend(const at::Tensor& addend, const at::Tensor& x, std::int64_t columns) {
  return !addend.defined() || (addend.size(-1) == columns && addend.scalar_type() == x.scalar_type() &&
                               addend.device() == x.device() && addend.stride(-1) == 1);
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                  const at::Tensor& residual) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1), "linear: x ", x.sizes(),
              " does not fit weight ", weight.sizes());
  TORCH_CHECK(is_addend(bias, x, weight.size(0)) && is_addend(residual, x, weight.size(0)) &&
                  (!residual.defined() || residual.size(0) == x.size(0)),
              "linear: bias or residual does not fit x ", x.sizes(), " and weight ", weight.sizes());
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda() && on_cuda::can_multiply(x, weight))
    return on_cuda::linear(x, weight, bias, residual, tf32_allowed);
#endif
  return linear_definition(x, weight, bias, residual);
}

at::Tensor linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& residual) {
  TORCH_CHECK(dy.dim() == 2 && weight.dim() == 2 && dy.size(1) == weight.size(0) &&
                  is_addend(residual, dy, weight.size(1)) &&
                  (!residual.defined() || residual.size(0) == dy.size(0)),
              "linear_backward: dy ", dy.sizes(), " or the residual does not fit weight ", weight.sizes());
#ifdef CLIP_LORA_WITH_CUDA
  if (dy.is_cuda() && on_cuda::can_multiply(dy, weight))
    return on_cuda::linear_backward(dy, weight, residual, tf32_allowed);
#endif
  at::Tensor dx = at::mm(dy, weight);
  return residual.defined() ? dx.add_(residual) : dx;
}

void allow_tf32(bool allow) { tf32_allowed = allow; }

}  // namespace clip_lora::ops
