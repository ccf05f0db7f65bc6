#include "training_state.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <sstream>
#include <string>

#include "clip_lora/core/errors.hpp"
#include "replay.hpp"

namespace clip_lora::engine {
namespace {

std::string form_of(const at::Tensor& tensor) {
  std::ostringstream text;
  text << tensor.scalar_type() << " " << tensor.sizes();
  return text.str();
}

void require_same_form(const io::StateDict& state, const io::StateDict& expected) {
  for (const auto& [name, tensor] : expected) {
    const auto found = state.find(name);
    const std::string got = found == state.end() ? "nothing" : form_of(found->second);
    if (got != form_of(tensor)) {
      throw CheckpointError("training state: '" + name + "' is " + got + ", expected " + form_of(tensor));
    }
  }
  for (const auto& [name, tensor] : state) {
    if (!expected.contains(name)) throw CheckpointError("training state: unexpected tensor '" + name + "'");
  }
}

at::Tensor copied_to_host(const at::Tensor& source) {
  const auto options = at::TensorOptions(source.scalar_type()).pinned_memory(source.is_cuda());
  return at::empty(source.sizes(), options).copy_(source, /*non_blocking=*/true);
}

}  // namespace

std::function<Measurements()> copy_to_host(const at::Tensor& measured, const at::Tensor& counters,
                                           bool scales_loss) {
  const at::NoGradGuard no_grad;
  const auto arrived = std::make_shared<Moment>();
  const at::Tensor here = copied_to_host(measured), counted = copied_to_host(counters);
  arrived->mark_current_stream(measured.device());
  return [here, counted, arrived, scales_loss] {
    arrived->wait();
    const float* values = here.const_data_ptr<float>();
    const double* counts = counted.const_data_ptr<double>();
    return Measurements{.loss = values[kLoss],
                        .gradient_norm = values[kGradientNorm],
                        .loss_scale = values[kLossScale],
                        .scales_loss = scales_loss,
                        .skipped = static_cast<std::int64_t>(counts[0] - counts[1])};
  };
}

void require_possible_state(const io::StateDict& state, const io::StateDict& expected,
                            std::int64_t total_iterations, bool scales_loss) {
  require_same_form(state, expected);
  const double iteration = state.at("counters")[0].item<double>();
  const double scale = state.at("counters")[2].item<double>();
  if (!(iteration >= 0.0 && iteration <= static_cast<double>(total_iterations)) ||
      iteration != std::floor(iteration) || (scales_loss && !(scale > 0.0))) {
    throw CheckpointError("training state: 'counters' say iteration " + std::to_string(iteration) +
                          " and loss scale " + std::to_string(scale) + ", expected a whole number up to " +
                          std::to_string(total_iterations) + " and a positive one");
  }
}

}  // namespace clip_lora::engine
