#include "clip_lora/ops/elementwise.hpp"

#include <ATen/ATen.h>

namespace clip_lora::ops {

at::Tensor quick_gelu(const at::Tensor& x) { return at::silu(1.702 * x) * (1.0 / 1.702); }

at::Tensor l2_normalise(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  return wide / wide.norm(2, /*dim=*/-1, /*keepdim=*/true);
}

}  // namespace clip_lora::ops
