#include "clip_lora/ops/residual_adapter.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>

#include "clip_lora/ops/linear.hpp"

#ifdef CLIP_LORA_WITH_CUDA
#include "fallback.hpp"
#include "on_cuda.hpp"
#include "residual_adapter_kernels.hpp"
#endif

namespace clip_lora::ops {
#ifdef CLIP_LORA_WITH_CUDA
namespace on_cuda {
namespace {

/// Whether the kernels take these matrices, [..., D] of one type, as they lie.
bool takes(at::TensorList matrices) {
  if (!matrices.front().is_cuda() || matrices.front().numel() == 0) return false;
  const bool fitting = std::ranges::all_of(matrices, [](const at::Tensor& matrix) {
    return matrix.is_contiguous() && matrix.size(-1) % 8 == 0 && matrix.scalar_type() != at::kDouble &&
           reinterpret_cast<std::uintptr_t>(matrix.const_data_ptr()) % 16 == 0;
  });
  if (!fitting) report_fallback("residual_adapter: the kernels want rows of 8 n values, 16-byte aligned");
  return fitting;
}

const float* values_of(const at::Tensor& floats) {
  if (!floats.defined()) return nullptr;
  TORCH_CHECK(floats.is_contiguous(), "residual_adapter: expected contiguous factors");
  return floats.const_data_ptr<float>();
}

/// residual + z + s·δ·change, in change's memory.
at::Tensor add_change(at::Tensor change, const at::Tensor& z, const at::Tensor& scale,
                      const at::Tensor& factors, const at::Tensor& residual) {
  launch_add_change(change.mutable_data_ptr(), z.const_data_ptr(), residual.const_data_ptr(),
                    values_of(scale), values_of(factors), z.size(0), z.size(1), element_of(z),
                    current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return change;
}

at::Tensor scale_rows(const at::Tensor& x, const at::Tensor& factors) {
  at::Tensor out = at::empty_like(x);
  launch_scale_rows(x.const_data_ptr(), values_of(factors), out.mutable_data_ptr(), x.size(0), x.size(1),
                    element_of(x), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

at::Tensor scale_weight(const at::Tensor& weight, const at::Tensor& scale) {
  at::Tensor out = at::empty_like(weight);
  launch_scale_weight(weight.const_data_ptr(), values_of(scale), out.mutable_data_ptr(), weight.numel(),
                      element_of(weight), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

/// From `product`, the gradient of s·W: sets that of W, or adds to it; returns that of s, [1].
at::Tensor weight_gradient(const at::Tensor& product, const ResidualAdapter& adapter,
                           const at::Tensor& d_weight, bool add) {
  const at::Tensor parts = at::empty({kAdapterGradientBlocks}, product.options());
  launch_adapter_gradient(values_of(product), adapter.weight.const_data_ptr(), values_of(adapter.scale),
                          d_weight.mutable_data_ptr<float>(), parts.mutable_data_ptr<float>(),
                          product.numel(), add, element_of(adapter.weight), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return parts.sum(0, /*keepdim=*/true);
}

}  // namespace
}  // namespace on_cuda
#endif

namespace {

/// Whether W is given as U V.
bool is_low_rank(const ResidualAdapter& adapter) { return adapter.up.defined(); }

void check(const ResidualAdapter& adapter, std::int64_t width) {
  const bool fits =
      is_low_rank(adapter)
          ? !adapter.weight.defined() && adapter.down.defined() && adapter.up.dim() == 2 &&
                adapter.up.size(0) == width &&
                adapter.down.sizes() == at::IntArrayRef({adapter.up.size(1), width})
          : adapter.weight.defined() && adapter.weight.sizes() == at::IntArrayRef({width, width});
  TORCH_CHECK(fits && adapter.scale.numel() == 1,
              "residual_adapter: expected W [D, D] or U [D, R] and V [R, D], and s [1], of D = ", width);
}

void check_pass(const at::Tensor& z, const at::Tensor& other, const at::Tensor& factors) {
  TORCH_CHECK(z.dim() == 2 && z.sizes() == other.sizes() && z.scalar_type() == other.scalar_type(),
              "residual_adapter: z ", z.sizes(), " ", z.scalar_type(), " does not fit ", other.sizes(), " ",
              other.scalar_type());
  TORCH_CHECK(
      !factors.defined() || (factors.sizes() == z.sizes().slice(0, 1) && factors.scalar_type() == at::kFloat),
      "residual_adapter: expected a float32 factor for each of ", z.size(0), " rows");
}

/// s · weight, of weight's type.
at::Tensor scaled(const at::Tensor& weight, const at::Tensor& scale) {
#ifdef CLIP_LORA_WITH_CUDA
  if (on_cuda::takes({weight})) return on_cuda::scale_weight(weight, scale);
#endif
  return (weight * scale).to(weight.scalar_type());
}

/// dᵀ x, in float32 whatever the type. d: [T, N]; x: [T, K]; returns [N, K].
at::Tensor product_over_rows(const at::Tensor& d, const at::Tensor& x) {
  if (d.is_cuda() && d.scalar_type() != at::kFloat) return at::mm(d.t(), x, at::kFloat);
  return ops::linear(d.to(at::kFloat).t(), x.to(at::kFloat).t());
}

/// Sets `target` to the value, or adds it.
void put(const at::Tensor& target, const at::Tensor& value, bool add) {
  if (add) {
    target.add_(value);
  } else {
    target.copy_(value);
  }
}

/// ⟨a, b⟩ in float32.
at::Tensor inner_product(const at::Tensor& a, const at::Tensor& b) { return (a * b).sum(); }

}  // namespace

at::Tensor residual_adapter(const at::Tensor& z, const ResidualAdapter& adapter, const at::Tensor& factors) {
  if (adapter.is_empty()) return z;
  check(adapter, z.size(-1));
  const at::Tensor wide = z.to(at::promote_types(z.scalar_type(), at::kFloat));
  const auto times = [&](const at::Tensor& x, const at::Tensor& weight) {
    return at::matmul(x, weight.to(wide.scalar_type()).t());
  };
  at::Tensor change =
      is_low_rank(adapter) ? times(times(wide, adapter.down), adapter.up) : times(wide, adapter.weight);
  change = change * adapter.scale;
  if (factors.defined()) change = change * factors.unsqueeze(-1);
  return (wide + change).to(z.scalar_type());
}

at::Tensor add_adapted(const at::Tensor& z, const ResidualAdapter& adapter, const at::Tensor& factors,
                       const at::Tensor& residual) {
  check_pass(z, residual, factors);
  if (adapter.is_empty()) return z + residual;
  check(adapter, z.size(1));
  at::Tensor out = is_low_rank(adapter) ? ops::linear(ops::linear(z, adapter.down), adapter.up)
                                        : ops::linear(z, adapter.weight);  // W z
#ifdef CLIP_LORA_WITH_CUDA
  if (const at::Tensor rows = z.contiguous(), rest = residual.contiguous(); on_cuda::takes({out, rows, rest}))
    return on_cuda::add_change(out, rows, adapter.scale, factors, rest);
#endif
  const at::Tensor row_factors = factors.defined() ? factors * adapter.scale : adapter.scale;  // s·δ
  at::addcmul_out(out, z, out, row_factors.unsqueeze(1).to(z.scalar_type()));
  // The residual comes last: a sum rounds at the size of what it starts from.
  return out.add_(residual);
}

at::Tensor change_gradient(const at::Tensor& d_out, const at::Tensor& factors) {
  check_pass(d_out, d_out, factors);
  if (!factors.defined()) return d_out;
#ifdef CLIP_LORA_WITH_CUDA
  if (on_cuda::takes({d_out})) return on_cuda::scale_rows(d_out, factors);
#endif
  return d_out * factors.unsqueeze(1).to(d_out.scalar_type());
}

at::Tensor add_adapted_backward(const at::Tensor& d_out, const at::Tensor& d_change,
                                const ResidualAdapter& adapter) {
  check_pass(d_out, d_change, {});
  if (adapter.is_empty()) return d_out;
  check(adapter, d_out.size(1));
  const bool low_rank = is_low_rank(adapter);
  const at::Tensor d = low_rank ? ops::linear_backward(d_change, adapter.up) : d_change;
  const at::Tensor& weight = low_rank ? adapter.down : adapter.weight;
  return ops::linear_backward(d, scaled(weight, adapter.scale), d_out);
}

void residual_adapter_gradients(const at::Tensor& d_change, const at::Tensor& z,
                                const ResidualAdapter& adapter, const ResidualAdapter& d_adapter, bool add) {
  check_pass(z, d_change, {});
  check(adapter, z.size(1));
  check(d_adapter, z.size(1));
  if (!is_low_rank(adapter)) {
    const at::Tensor product = product_over_rows(d_change, z);  // in s·W, [D, D]
#ifdef CLIP_LORA_WITH_CUDA
    if (on_cuda::takes({product, adapter.weight, d_adapter.weight})) {
      return put(d_adapter.scale, on_cuda::weight_gradient(product, adapter, d_adapter.weight, add), add);
    }
#endif
    put(d_adapter.scale, inner_product(adapter.weight, product), add);
    return put(d_adapter.weight, product * adapter.scale, add);
  }
  // The short rows come first in a product over them: several times faster on a CPU.
  const at::Tensor hidden = ops::linear(z, adapter.down);                  // [T, R]
  const at::Tensor d_hidden = ops::linear_backward(d_change, adapter.up);  // over s
  const at::Tensor d_scaled_up = product_over_rows(hidden, d_change).t();  // in s·U, [D, R]
  put(d_adapter.scale, inner_product(adapter.up, d_scaled_up), add);
  put(d_adapter.up, d_scaled_up * adapter.scale, add);
  put(d_adapter.down, product_over_rows(d_hidden, z) * adapter.scale, add);
}

at::Tensor merging_matrix(const ResidualAdapter& adapter, double scale) {
  TORCH_CHECK(!adapter.is_empty(), "merging_matrix: there is no adapter");
  const at::Tensor weight = is_low_rank(adapter) ? at::matmul(adapter.up, adapter.down) : adapter.weight;
  check(adapter, weight.size(0));
  const at::Tensor in_float32 = weight.to(at::kFloat);
  return at::eye(weight.size(0), in_float32.options()) + in_float32 * (adapter.scale * scale);
}

}  // namespace clip_lora::ops
