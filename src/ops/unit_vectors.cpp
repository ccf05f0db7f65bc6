#include "unit_vectors.hpp"

#include <ATen/ATen.h>

namespace clip_lora::ops {

UnitVectors unit_vectors(const at::Tensor& x) {
  const at::Tensor norms = at::linalg_vector_norm(x, 2, {-1}, /*keepdim=*/true);
  return {x / norms, norms};
}

at::Tensor unit_vectors_backward(const at::Tensor& d, const UnitVectors& unit) {
  const at::Tensor along = (unit.vectors * d).sum(-1, /*keepdim=*/true);
  return (d - unit.vectors * along) / unit.norms;
}

}  // namespace clip_lora::ops
