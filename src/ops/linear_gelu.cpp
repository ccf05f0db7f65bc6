#include "clip_lora/ops/linear_gelu.hpp"

#include <ATen/ATen.h>

#include "clip_lora/ops/linear.hpp"

#ifdef CLIP_LORA_WITH_CUTLASS
#include "device_limits.hpp"
#include "linear_cuda.hpp"
#include "linear_gelu_kernels.hpp"
#include "on_cuda.hpp"
#endif

namespace clip_lora::ops {

#ifdef CLIP_LORA_WITH_CUTLASS
namespace on_cuda {
namespace {

// The kernels' tiles, and how many of them it takes to beat cuBLASLt and a kernel of the activation: with
// fewer, many multiprocessors wait for the last ones.
constexpr std::int64_t kGeluTileRows = 192, kTileFeatures = 128, kFewestTiles = 256;

bool is_dense_and_aligned(const at::Tensor& dense) {
  return dense.is_contiguous() && reinterpret_cast<std::uintptr_t>(dense.const_data_ptr()) % 16 == 0;
}

/// Whether the kernels are made for this product and are the faster way. By the shape alone: a product's bits
/// do not depend on the moment.
bool fits(const at::Tensor& rows, const at::Tensor& weight, std::int64_t features) {
  const std::int64_t tiles =
      ((rows.size(0) + kGeluTileRows - 1) / kGeluTileRows) * ((features + kTileFeatures - 1) / kTileFeatures);
  return rows.is_cuda() && (rows.scalar_type() == at::kHalf || rows.scalar_type() == at::kBFloat16) &&
         can_multiply(rows, weight) && features % 8 == 0 && tiles >= kFewestTiles &&
         device_limits().compute_capability == 90;
}

GeluProduct product_of(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& out, Gelu kind) {
  return {.rows = rows.const_data_ptr(),
          .row_stride = rows.stride(0),
          .weight = weight.const_data_ptr(),
          .weight_stride = weight.stride(0),
          .out = out.mutable_data_ptr(),
          .row_count = static_cast<int>(rows.size(0)),
          .features = static_cast<int>(out.size(1)),
          .inputs = static_cast<int>(rows.size(1)),
          .quick = kind == Gelu::kQuick};
}

Activated linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Gelu kind,
                      bool keep_hidden) {
  const auto new_rows = [&] { return at::empty({x.size(0), weight.size(0)}, x.options()); };
  Activated result = {keep_hidden ? new_rows() : at::Tensor(), new_rows()};
  TORCH_CHECK(launch_linear_gelu(product_of(x, weight, result.out, kind), bias.const_data_ptr(),
                                 keep_hidden ? result.hidden.mutable_data_ptr() : nullptr, element_of(x),
                                 current_stream()),
              "linear_gelu: CUTLASS did not take x ", x.sizes(), " and weight ", weight.sizes());
  return result;
}

at::Tensor gelu_linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& hidden,
                                Gelu kind) {
  at::Tensor d_hidden = at::empty_like(hidden);
  TORCH_CHECK(launch_gelu_linear_backward(product_of(dy, weight, d_hidden, kind), hidden.const_data_ptr(),
                                          element_of(dy), current_stream()),
              "gelu_linear_backward: CUTLASS did not take dy ", dy.sizes(), " and weight ", weight.sizes());
  return d_hidden;
}

}  // namespace
}  // namespace on_cuda
#endif

Activated linear_gelu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, Gelu kind,
                      bool keep_hidden) {
  TORCH_CHECK(x.dim() == 2 && weight.dim() == 2 && x.size(1) == weight.size(1), "linear_gelu: x ", x.sizes(),
              " does not fit weight ", weight.sizes());
  TORCH_CHECK(bias.dim() == 1 && bias.size(0) == weight.size(0) && bias.scalar_type() == x.scalar_type(),
              "linear_gelu: bias ", bias.sizes(), " ", bias.scalar_type(), " does not fit weight ",
              weight.sizes(), " ", weight.scalar_type());
#ifdef CLIP_LORA_WITH_CUTLASS
  if (on_cuda::fits(x, weight, weight.size(0)) && on_cuda::is_dense_and_aligned(bias))
    return on_cuda::linear_gelu(x, weight, bias, kind, keep_hidden);
#endif
  const at::Tensor hidden = linear(x, weight, bias);
  return {keep_hidden ? hidden : at::Tensor(), gelu(hidden, kind)};
}

at::Tensor gelu_linear_backward(const at::Tensor& dy, const at::Tensor& weight, const at::Tensor& hidden,
                                Gelu kind) {
  TORCH_CHECK(dy.dim() == 2 && weight.dim() == 2 && dy.size(1) == weight.size(0) && hidden.dim() == 2 &&
                  hidden.size(0) == dy.size(0) && hidden.size(1) == weight.size(1),
              "gelu_linear_backward: dy ", dy.sizes(), " and weight ", weight.sizes(), " do not fit hidden ",
              hidden.sizes());
#ifdef CLIP_LORA_WITH_CUTLASS
  if (on_cuda::fits(dy, weight, weight.size(1)) && on_cuda::is_dense_and_aligned(hidden) &&
      hidden.scalar_type() == dy.scalar_type())
    return on_cuda::gelu_linear_backward(dy, weight, hidden, kind);
#endif
  return gelu_backward_(linear_backward(dy, weight), hidden, kind);
}

}  // namespace clip_lora::ops
