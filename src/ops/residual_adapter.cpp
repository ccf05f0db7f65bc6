#include "clip_lora/ops/residual_adapter.hpp"

#include <ATen/ATen.h>

#include "clip_lora/ops/linear.hpp"

namespace clip_lora::ops {
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

/// x with every row times its factor; x itself without factors. x: [T, N].
at::Tensor scaled_rows(const at::Tensor& x, const at::Tensor& factors) {
  return factors.defined() ? x * factors.unsqueeze(1).to(x.scalar_type()) : x;
}

/// s · weight, of weight's type.
at::Tensor scaled(const at::Tensor& weight, const at::Tensor& scale) {
  return (weight * scale).to(weight.scalar_type());
}

/// residual + d (s · weight), the gradient of a product with s · weight. d: [T, N]; weight: [N, K]; residual:
/// [T, K].
at::Tensor add_product(const at::Tensor& d, const at::Tensor& weight, const at::Tensor& scale,
                       const at::Tensor& residual) {
  // Rows of neighbours, which a device's library wants; the copy is small beside the product.
  return ops::linear(d, scaled(weight, scale).t().contiguous(), {}, residual);
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
                                        : ops::linear(z, adapter.weight);                      // W z
  const at::Tensor row_factors = factors.defined() ? factors * adapter.scale : adapter.scale;  // s·δ
  at::addcmul_out(out, z, out, row_factors.unsqueeze(1).to(z.scalar_type()));
  // The residual comes last: a sum rounds at the size of what it starts from.
  return out.add_(residual);
}

at::Tensor add_adapted_backward(const at::Tensor& d_out, const at::Tensor& z, const ResidualAdapter& adapter,
                                const at::Tensor& factors, const ResidualAdapter& d_adapter, bool add) {
  check_pass(z, d_out, factors);
  if (adapter.is_empty()) return d_out;
  check(adapter, z.size(1));
  check(d_adapter, z.size(1));
  if (!is_low_rank(adapter)) {
    const at::Tensor d_change = scaled_rows(d_out, factors);            // [T, D]
    const at::Tensor d_scaled_weight = product_over_rows(d_change, z);  // in s·W, [D, D]
    put(d_adapter.scale, inner_product(adapter.weight, d_scaled_weight), add);
    put(d_adapter.weight, d_scaled_weight * adapter.scale, add);
    return add_product(d_change, adapter.weight, adapter.scale, d_out);
  }
  // Factors are applied where rows are short, and the short rows come first in a product over them: several
  // times faster on a CPU.
  const at::Tensor hidden = scaled_rows(ops::linear(z, adapter.down), factors);  // [T, R]
  const at::Tensor d_hidden =
      scaled_rows(ops::linear(d_out, adapter.up.t().contiguous()), factors);  // over s
  const at::Tensor d_scaled_up = product_over_rows(hidden, d_out).t();        // in s·U, [D, R]
  put(d_adapter.scale, inner_product(adapter.up, d_scaled_up), add);
  put(d_adapter.up, d_scaled_up * adapter.scale, add);
  put(d_adapter.down, product_over_rows(d_hidden, z) * adapter.scale, add);
  return add_product(d_hidden, adapter.down, adapter.scale, d_out);
}

at::Tensor merging_matrix(const ResidualAdapter& adapter, double scale) {
  TORCH_CHECK(!adapter.is_empty(), "merging_matrix: there is no adapter");
  const at::Tensor weight = is_low_rank(adapter) ? at::matmul(adapter.up, adapter.down) : adapter.weight;
  check(adapter, weight.size(0));
  const at::Tensor in_float32 = weight.to(at::kFloat);
  return at::eye(weight.size(0), in_float32.options()) + in_float32 * (adapter.scale * scale);
}

}  // namespace clip_lora::ops
