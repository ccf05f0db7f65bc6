#pragma once

#include <cstdint>
#include <functional>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::engine {

/// Where a measurement stands among three float32 on the device.
enum Measured { kLoss, kGradientNorm, kLossScale };

/// Has `measured` [3] by Measured and the optimiser's `counters` [4] copied to the host, and returns at once; what it
/// returns waits for them.
std::function<Measurements()> copy_to_host(const at::Tensor& measured, const at::Tensor& counters,
                                           bool scales_loss);

/// Throws CheckpointError unless `state`, as TrainingStep::state() gives it, has the names, shapes and types
/// of `expected`, and counters that a step of `total_iterations` can be at.
void require_possible_state(const io::StateDict& state, const io::StateDict& expected,
                            std::int64_t total_iterations, bool scales_loss);

}  // namespace clip_lora::engine
