#pragma once

#include <cstdint>

#include "clip_lora/io/state_dict.hpp"

namespace clip_lora::engine {

/// Throws CheckpointError unless `state`, as TrainingStep::state() gives it, has the names, shapes and types
/// of `expected`, and counters that a step of `total_iterations` can be at.
void require_possible_state(const io::StateDict& state, const io::StateDict& expected,
                            std::int64_t total_iterations, bool scales_loss);

}  // namespace clip_lora::engine
