#pragma once

#include <string>
#include <vector>

#include "sweep_options.hpp"
#include "sweep_plan.hpp"
#include "sweep_progress.hpp"
#include "sweep_worker.hpp"

namespace clip_lora::cli {

/// The value of CUDA_VISIBLE_DEVICES for each process of a sweep, "" where it stays as it is. One process
/// that needs no other value is no list: the sweep is then done by this process. Throws ConfigError for GPUs
/// that are not there.
std::vector<std::string> process_gpus(const SweepOptions& options);

/// Whether this process was started by work_in_processes().
bool is_worker_process();

/// Starts this program with `arguments` ("sweep …") once for each of `gpus`, and waits; they share the runs
/// by leases. Their lines are passed on. A signal is passed on to them. Throws Interrupted, and Error if one
/// of them ended by itself before all was done.
SweepOutcome work_in_processes(const std::vector<std::string>& arguments,
                               const std::vector<std::string>& gpus, const SweepPlan& plan,
                               SweepProgress& progress);

}  // namespace clip_lora::cli
