#pragma once

#include <ATen/core/Tensor.h>

#include "clip_lora/ops/residual_adapter.hpp"

namespace clip_lora::testing {

/// What `function` makes of each tensor that is there.
template <typename Function>
ops::ResidualAdapter each(const ops::ResidualAdapter& adapter, const Function& function) {
  const auto apply = [&](const at::Tensor& x) { return x.defined() ? function(x) : x; };
  return {apply(adapter.weight), apply(adapter.up), apply(adapter.down), apply(adapter.scale)};
}

/// Both parts of add_adapted's backward; returns dz.
inline at::Tensor backward(const at::Tensor& d_out, const at::Tensor& z, const ops::ResidualAdapter& adapter,
                           const at::Tensor& factors, const ops::ResidualAdapter& d_adapter, bool add) {
  const at::Tensor d_change = ops::change_gradient(d_out, factors);
  ops::residual_adapter_gradients(d_change, z, adapter, d_adapter, add);
  return ops::add_adapted_backward(d_out, d_change, adapter);
}

}  // namespace clip_lora::testing
