#pragma once

#include <ATen/core/Tensor.h>

namespace clip_lora::ops {

/// R-Adapter's change of what a frozen module yields: h(z) = z + s·δ·W z, W = U V if it is of low rank. Kim
/// et al. 2024, eq. 4. A struct without weights changes nothing.
struct ResidualAdapter {
  at::Tensor weight;  ///< W [D, D]; undefined if U and V are there
  at::Tensor up;      ///< U [D, R]
  at::Tensor down;    ///< V [R, D]
  at::Tensor scale;   ///< s [1]

  bool is_empty() const { return !scale.defined(); }
};

/// h(z) by plain operations, differentiable in z and in the adapter. z: [..., D] of any type; the adapter:
/// float32; factors: δ, float32, broadcast against [...], or undefined: 1. Returns [..., D] of z's type.
at::Tensor residual_adapter(const at::Tensor& z, const ResidualAdapter& adapter, const at::Tensor& factors);

/// residual + h(z), as one explicit pass. z, residual: [T, D] of the compute type; adapter: W (or U and V) of
/// the compute type, s float32 on the device; factors: [T] float32 or undefined. Returns [T, D].
at::Tensor add_adapted(const at::Tensor& z, const ResidualAdapter& adapter, const at::Tensor& factors,
                       const at::Tensor& residual);

/// δ·d_out, [T, D]: the gradient of s·W z, which both parts of add_adapted's backward read. d_out:
/// [T, D], the gradient of what it returns, and of the residual.
at::Tensor change_gradient(const at::Tensor& d_out, const at::Tensor& factors);

/// The first part: dz, [T, D]. d_change: change_gradient's, as in the second.
at::Tensor add_adapted_backward(const at::Tensor& d_out, const at::Tensor& d_change,
                                const ResidualAdapter& adapter);

/// The second: sets (or adds to, if `add`) the gradients in `d_adapter`, float32 tensors of the adapter's shapes.
/// That of s is that of W's factor: ⟨W, dW⟩ / s, computed without dividing.
void residual_adapter_gradients(const at::Tensor& d_change, const at::Tensor& z,
                                const ResidualAdapter& adapter, const ResidualAdapter& d_adapter, bool add);

/// M = I + s·W of an adapter, [D, D] float32, differentiable: W₀ ← M W₀ and b₀ ← M b₀ merge it into the
/// module before it. `scale` is a factor on s.
at::Tensor merging_matrix(const ResidualAdapter& adapter, double scale);

}  // namespace clip_lora::ops
