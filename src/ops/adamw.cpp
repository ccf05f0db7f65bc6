#include "clip_lora/ops/adamw.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#ifdef CLIP_LORA_WITH_CUDA
#include "adamw_kernels.hpp"
#include "on_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

enum Counter { kIterations, kUpdates, kScale, kUpdatesAtThisScale };

/// Gradients are summed in pieces of so many values, since float32 loses count of more.
constexpr std::int64_t kNormPiece = std::int64_t{1} << 16;

/// The iterations of half a cosine, at least one.
double annealed_iterations(const AdamWOptions& options) {
  return static_cast<double>(std::max<std::int64_t>(options.total_iterations - options.warmup_iterations, 1));
}

/// Whether the gradients hold an infinity or a NaN; divides them by the scale.
bool unscale(const at::Tensor& gradients, double scale) {
  at::Tensor found_inf = at::zeros({1}, gradients.options());
  at::_amp_foreach_non_finite_check_and_unscale_(gradients, found_inf,
                                                 at::full({}, 1.0 / scale, gradients.options()));
  return found_inf.item<float>() != 0.0F;
}

void adapt_scale(double* counters, const LossScaling& scaling, bool found_inf) {
  double& scale = counters[kScale];
  double& updates = counters[kUpdatesAtThisScale];
  updates = found_inf ? 0.0 : updates + 1.0;
  if (found_inf) scale *= scaling.backoff_factor;
  if (updates < static_cast<double>(scaling.growth_interval)) return;
  updates = 0.0;
  if (std::isfinite(static_cast<float>(scale * scaling.growth_factor))) scale *= scaling.growth_factor;
}

/// Shortens the gradients to the largest norm, as torch.nn.utils.clip_grad_norm_.
void clip(const at::Tensor& gradients, double largest_norm) {
  const std::vector<at::Tensor> norms = at::_foreach_norm(gradients.split(kNormPiece));
  const double norm = at::stack(norms).to(at::kDouble).norm().item<double>();
  const double factor = largest_norm / (norm + 1e-6);
  if (factor < 1.0) gradients.mul_(factor);
}

/// On a CPU, where counters are read without waiting for anything.
void adamw_step_definition(const AdamWState& state, const AdamWOptions& options, const LossScaling& scaling) {
  double* counters = state.counters.mutable_data_ptr<double>();
  const double rate = learning_rate_at(options, static_cast<std::int64_t>(counters[kIterations]));
  counters[kIterations] += 1.0;
  const bool found_inf = unscale(state.gradients, counters[kScale]);
  adapt_scale(counters, scaling, found_inf);
  if (found_inf) return;
  if (options.largest_gradient_norm > 0.0) clip(state.gradients, options.largest_gradient_norm);
  counters[kUpdates] += 1.0;
  const at::Tensor update = at::full({}, counters[kUpdates], state.parameters.options());
  at::_fused_adamw_(state.parameters, state.gradients, state.first_moments, state.second_moments,
                    /*max_exp_avg_sqs=*/{}, update, rate, options.beta1, options.beta2, options.weight_decay,
                    options.epsilon, /*amsgrad=*/false, /*maximize=*/false);
  if (state.averages.defined()) state.averages.lerp_(state.parameters, 1.0 - options.average_decay);
}

void check_buffers(const AdamWState& state) {
  const at::Tensor& parameters = state.parameters;
  for (const at::Tensor* buffer :
       {&parameters, &state.gradients, &state.first_moments, &state.second_moments, &state.averages}) {
    if (buffer == &state.averages && !buffer->defined()) continue;
    TORCH_CHECK(buffer->scalar_type() == at::kFloat && buffer->is_contiguous() &&
                    buffer->numel() == parameters.numel() && buffer->device() == parameters.device(),
                "adamw_step: expected float32 buffers of ", parameters.numel(), " values on ",
                parameters.device(), ", got ", buffer->sizes(), " ", buffer->scalar_type(), " on ",
                buffer->device());
  }
  TORCH_CHECK(state.counters.scalar_type() == at::kDouble && state.counters.numel() == 4 &&
                  state.counters.is_contiguous() && state.counters.device() == parameters.device(),
              "adamw_step: expected four float64 counters on ", parameters.device());
}

}  // namespace

double learning_rate_at(const AdamWOptions& options, std::int64_t iteration) {
  if (iteration < options.warmup_iterations) {
    return options.learning_rate * static_cast<double>(iteration + 1) /
           static_cast<double>(options.warmup_iterations);
  }
  const double progress =
      static_cast<double>(iteration - options.warmup_iterations) / annealed_iterations(options);
  const double amplitude = 0.5 * (options.learning_rate - options.final_learning_rate);
  return options.final_learning_rate + amplitude * (1.0 + std::cos(std::numbers::pi * progress));
}

#ifdef CLIP_LORA_WITH_CUDA
namespace on_cuda {
namespace {

AdamWConstants constants_of(const AdamWOptions& options, const LossScaling& scaling) {
  AdamWConstants constants;
  constants.learning_rate = options.learning_rate;
  constants.final_learning_rate = options.final_learning_rate;
  constants.weight_decay = options.weight_decay;
  constants.beta1 = options.beta1;
  constants.beta2 = options.beta2;
  constants.epsilon = options.epsilon;
  constants.warmup_iterations = static_cast<double>(options.warmup_iterations);
  constants.annealed_iterations = annealed_iterations(options);
  constants.largest_gradient_norm = options.largest_gradient_norm;
  constants.average_weight = 1.0 - options.average_decay;
  constants.growth_factor = scaling.growth_factor;
  constants.backoff_factor = scaling.backoff_factor;
  constants.growth_interval = static_cast<double>(scaling.growth_interval);
  return constants;
}

void adamw_step(const AdamWState& state, const AdamWOptions& options, const LossScaling& scaling) {
  const at::Tensor scratch = at::empty({kAdamWScratchBytes}, state.parameters.options().dtype(at::kByte));
  AdamWBuffers buffers;
  buffers.parameters = state.parameters.mutable_data_ptr<float>();
  buffers.gradients = state.gradients.const_data_ptr<float>();
  buffers.first_moments = state.first_moments.mutable_data_ptr<float>();
  buffers.second_moments = state.second_moments.mutable_data_ptr<float>();
  if (state.averages.defined()) buffers.averages = state.averages.mutable_data_ptr<float>();
  buffers.counters = state.counters.mutable_data_ptr<double>();
  buffers.scratch = scratch.mutable_data_ptr();
  buffers.count = state.parameters.numel();
  for (const void* address :
       {static_cast<const void*>(buffers.parameters), static_cast<const void*>(buffers.gradients),
        static_cast<const void*>(buffers.first_moments), static_cast<const void*>(buffers.second_moments),
        static_cast<const void*>(buffers.averages)}) {
    TORCH_CHECK(reinterpret_cast<std::uintptr_t>(address) % 16 == 0, "adamw_step: buffers begin at 16 bytes");
  }
  launch_adamw(buffers, constants_of(options, scaling), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

at::Tensor table_of(const std::vector<UpColumns>& entries) {
  const auto bytes = static_cast<std::int64_t>(entries.size() * sizeof(UpColumnsEntry));
  const at::Tensor table = at::empty({bytes}, at::kByte);
  auto* rows = static_cast<UpColumnsEntry*>(table.mutable_data_ptr());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const at::Tensor& columns = entries[i].columns;
    rows[i] = {entries[i].offset,
               columns.mutable_data_ptr(),
               columns.stride(0),
               columns.stride(1),
               static_cast<std::int32_t>(columns.size(0)),
               static_cast<std::int32_t>(columns.size(1)),
               static_cast<float>(entries[i].scaling)};
  }
  return table.to(entries.front().columns.device());
}

void write(const std::vector<UpColumns>& entries, const at::Tensor& table, const at::Tensor& parameters) {
  std::int64_t largest = 0;
  for (const auto& entry : entries) largest = std::max(largest, entry.columns.numel());
  launch_up_columns(
      parameters.const_data_ptr<float>(), static_cast<const UpColumnsEntry*>(table.const_data_ptr()),
      static_cast<int>(entries.size()), largest, element_of(entries.front().columns), current_stream());
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

}  // namespace
}  // namespace on_cuda
#endif

void adamw_step(const AdamWState& state, const AdamWOptions& options, const LossScaling& scaling) {
  check_buffers(state);
#ifdef CLIP_LORA_WITH_CUDA
  if (state.parameters.is_cuda()) return on_cuda::adamw_step(state, options, scaling);
#endif
  adamw_step_definition(state, options, scaling);
}

UpColumnsWriter::UpColumnsWriter(std::vector<UpColumns> columns) : columns_(std::move(columns)) {
  for (const auto& entry : columns_) {
    const at::Tensor& first = columns_.front().columns;
    TORCH_CHECK(entry.columns.dim() == 2 && entry.columns.device() == first.device() &&
                    entry.columns.scalar_type() == first.scalar_type(),
                "UpColumnsWriter: expected columns [D, R] of one type on one device");
  }
#ifdef CLIP_LORA_WITH_CUDA
  if (!columns_.empty() && columns_.front().columns.is_cuda()) table_ = on_cuda::table_of(columns_);
#endif
}

void UpColumnsWriter::write(const at::Tensor& parameters) const {
  if (columns_.empty()) return;
#ifdef CLIP_LORA_WITH_CUDA
  if (table_.defined()) return on_cuda::write(columns_, table_, parameters);
#endif
  for (const auto& entry : columns_) {
    const at::Tensor b =
        parameters.narrow(0, entry.offset, entry.columns.numel()).view(entry.columns.sizes());
    at::Tensor(entry.columns).copy_(b * entry.scaling);
  }
}

}  // namespace clip_lora::ops
