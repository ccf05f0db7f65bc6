#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/engine/process_group.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {

/// The processes of this run by the environment, see engine::read_process_environment(); null where this one
/// is alone. Waits for the others. All but the first are made silent by the options, and each takes the GPU
/// of its LOCAL_RANK. Throws ConfigError for options that make no sense for several, and as
/// engine::ProcessGroup.
std::shared_ptr<engine::ProcessGroup> join_processes(RunOptions& options);

/// Throws ConfigError in each process, with the difference, unless all of them are about to do the same
/// training from the same checkpoint.
void require_same_training(engine::ProcessGroup& processes, const TrainingFiles& files, at::Device device);

/// What `compute` gives in the first process, in all of them: the others wait for it, however long that
/// takes.
double of_first(engine::ProcessGroup& processes, const std::function<double()>& compute);

}  // namespace clip_lora::cli
