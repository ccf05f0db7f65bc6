#include "clip_lora/io/finite.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <vector>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {
namespace {

std::int64_t count_not_finite(const at::Tensor& tensor) {
  if (!tensor.is_floating_point() || tensor.numel() == 0) return 0;
  const at::Tensor values = tensor.to(at::kFloat);
  // Finite only if all values are, and much faster than a look at each; of large values it may overflow.
  if (std::isfinite(values.sum().item<float>())) return 0;
  return values.isfinite().logical_not().sum().item<std::int64_t>();
}

}  // namespace

void require_finite(const StateDict& tensors, const std::string& source) {
  const at::NoGradGuard no_grad;
  std::vector<std::string> found;
  for (const auto& [name, tensor] : tensors) {
    const std::int64_t count = count_not_finite(tensor);
    if (count == 0) continue;
    found.push_back(name + " (" + std::to_string(count) + " of " + std::to_string(tensor.numel()) +
                    " values)");
  }
  if (found.empty()) return;
  throw CheckpointError(source + " holds infinities or NaN: " + join_capped(found) +
                        " (hint: the file is damaged, or the training that it comes from diverged)");
}

}  // namespace clip_lora::io
