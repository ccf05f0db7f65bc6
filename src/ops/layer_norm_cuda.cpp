#include "layer_norm_cuda.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "device_limits.hpp"
#include "fallback.hpp"
#include "layer_norm_kernels.hpp"
#include "mask_words.hpp"
#include "on_cuda.hpp"

namespace clip_lora::ops::on_cuda {
namespace {

/// Kernels move 16 bytes at a time.
bool is_aligned_if_there(const at::Tensor& tensor) {
  return !tensor.defined() || (reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()) % 16 == 0);
}
bool is_plain(const at::Tensor& tensor) {
  return !tensor.defined() || (tensor.is_contiguous() && is_aligned_if_there(tensor));
}

/// Parts [K, …] of float32 gradients.
bool are_parts(const at::Tensor& parts) {
  return parts.scalar_type() == at::kFloat && parts[0].is_contiguous() && is_aligned_if_there(parts) &&
         (parts.size(0) == 1 || parts.stride(0) % 4 == 0);
}

std::int64_t highest(const std::array<std::int64_t, 3>& ranks) {
  return *std::max_element(ranks.begin(), ranks.end());
}

DownUpdates updates_of(const DownProjection& down) {
  DownUpdates updates;
  if (down.columns == 0) return updates;
  updates.a = down.a.const_data_ptr<float>();
  std::copy(down.ranks.begin(), down.ranks.end(), updates.ranks);
  updates.columns = static_cast<int>(down.columns);
  updates.draw = draw_of(down.dropout);
  return updates;
}

bool rows_fit(const at::Tensor& x, const LayerNormWeights* weights, const DownProjection& down) {
  const bool weights_fit = weights == nullptr || (weights->weight.scalar_type() == x.scalar_type() &&
                                                  is_plain(weights->weight) && is_plain(weights->bias));
  const bool a_fits = down.columns == 0 || (down.a.scalar_type() == at::kFloat && down.a.is_contiguous());
  return is_plain(x) && weights_fit && a_fits && highest(down.ranks) <= kHighestRank;
}

bool shared_memory_suffices(int bytes) { return bytes >= 0 && bytes <= device_limits().shared_memory_bytes; }

bool or_report(bool fits, const char* name, const at::Tensor& x, const std::array<std::int64_t, 3>& ranks) {
  if (!fits) {
    report_fallback(std::string(name) + ": width " + std::to_string(x.size(1)) + ", rank " +
                    std::to_string(highest(ranks)));
  }
  return fits;
}

}  // namespace

bool can_append_forward(const at::Tensor& x, const LayerNormWeights* weights, const DownProjection& down) {
  const auto width = static_cast<int>(x.size(1));
  const bool fits = rows_fit(x, weights, down) && shared_memory_suffices(append_forward_shared_bytes(
                                                      width, weights != nullptr, updates_of(down)));
  return or_report(fits, weights != nullptr ? "layer_norm" : "append_down_projection", x, down.ranks);
}

bool can_append_backward(const at::Tensor& d_rows, const at::Tensor& x, const LayerNormWeights* weights,
                         const DownProjection& down, const at::Tensor& residual, const at::Tensor& d_a) {
  const auto width = static_cast<int>(x.size(1));
  const bool fits = rows_fit(x, weights, down) && is_plain(d_rows) && is_plain(residual) &&
                    (down.columns == 0 || are_parts(d_a)) &&
                    append_backward_fits(width, weights != nullptr, updates_of(down), element_of(x));
  return or_report(fits, weights != nullptr ? "layer_norm_backward" : "append_down_projection_backward", x,
                   down.ranks);
}

bool can_sum_up_gradient(const at::Tensor& dy, const at::Tensor& down_columns,
                         const std::array<std::int64_t, 3>& ranks, std::int64_t width,
                         const at::Tensor& d_b) {
  const bool fits = width % 8 == 0 && highest(ranks) <= kHighestRank && dy.stride(1) == 1 &&
                    is_aligned_if_there(dy) && dy.stride(0) % 8 == 0 && down_columns.stride(1) == 1 &&
                    d_b.scalar_type() == at::kFloat && d_b.stride(1) == 1;
  return or_report(fits, "up_projection_gradient", dy, ranks);
}

Normalised append_forward(const at::Tensor& x, const LayerNormWeights* weights, const DownProjection& down) {
  const std::int64_t rows = x.size(0), width = x.size(1);
  Normalised result = {at::empty({rows, width + down.columns}, x.options()), {}, {}};
  AppendForward arguments;
  arguments.x = x.const_data_ptr();
  arguments.rows = result.rows.data_ptr();
  arguments.row_count = rows;
  arguments.width = static_cast<int>(width);
  arguments.down = updates_of(down);
  if (weights != nullptr) {
    result.mean = at::empty({rows}, x.options().dtype(at::kFloat));
    result.inverse_deviation = at::empty({rows}, x.options().dtype(at::kFloat));
    arguments.weight = weights->weight.const_data_ptr();
    arguments.bias = weights->bias.const_data_ptr();
    arguments.epsilon = static_cast<float>(weights->epsilon);
    arguments.mean = result.mean.data_ptr<float>();
    arguments.inverse_deviation = result.inverse_deviation.data_ptr<float>();
  }
  launch_append_forward(arguments, element_of(x), device_limits().multiprocessors, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return result;
}

at::Tensor append_backward(const at::Tensor& d_rows, const at::Tensor& x, const Normalised& normalised,
                           const LayerNormWeights* weights, const DownProjection& down,
                           const at::Tensor& residual, const at::Tensor& d_a, bool needs_dx) {
  AppendBackward arguments;
  at::Tensor dx;
  if (needs_dx) {
    dx = at::empty(x.sizes(), x.options());
    arguments.dx = dx.data_ptr();
  }
  if (x.size(0) == 0) {
    if (down.columns > 0) d_a.zero_();
    return dx;
  }
  arguments.d_rows = d_rows.const_data_ptr();
  arguments.x = x.const_data_ptr();
  if (weights != nullptr) {
    arguments.weight = weights->weight.const_data_ptr();
    arguments.bias = weights->bias.const_data_ptr();
    arguments.mean = normalised.mean.const_data_ptr<float>();
    arguments.inverse_deviation = normalised.inverse_deviation.const_data_ptr<float>();
  }
  if (residual.defined()) arguments.residual = residual.const_data_ptr();
  arguments.row_count = x.size(0);
  arguments.width = static_cast<int>(x.size(1));
  arguments.down = updates_of(down);
  if (down.columns > 0) {
    arguments.d_a = d_a.data_ptr<float>();
    arguments.part_stride = d_a.stride(0);
    arguments.parts = static_cast<int>(d_a.size(0));
  }
  launch_append_backward(arguments, element_of(x), device_limits().multiprocessors, current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
  return dx;
}

void up_projection_gradient(const at::Tensor& dy, const at::Tensor& down_columns,
                            const std::array<std::int64_t, 3>& ranks, const std::array<double, 3>& scalings,
                            std::int64_t width, const at::Tensor& d_b) {
  UpGradient arguments;
  arguments.dy = dy.const_data_ptr();
  arguments.dy_stride = dy.stride(0);
  arguments.a = down_columns.const_data_ptr();
  arguments.a_stride = down_columns.stride(0);
  arguments.d_b = d_b.data_ptr<float>();
  arguments.part_stride = d_b.stride(0);
  arguments.parts = static_cast<int>(d_b.size(0));
  arguments.row_count = dy.size(0);
  arguments.width = static_cast<int>(width);
  arguments.updates = static_cast<int>(dy.size(1) / width);
  for (std::size_t update = 0; update < 3; ++update) {
    arguments.ranks[update] = static_cast<int>(ranks[update]);
    arguments.scalings[update] = static_cast<float>(scalings[update]);
  }
  launch_up_gradient(arguments, element_of(dy), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace clip_lora::ops::on_cuda
