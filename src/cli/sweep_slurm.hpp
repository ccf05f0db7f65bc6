#pragma once

#include <cstddef>
#include <filesystem>

#include "sweep_options.hpp"

namespace clip_lora::cli {

/// Writes `<save_path>/sweep.sbatch`, an array job of at most MaxArraySize tasks that does the `runs` runs of
/// a sweep, and `<save_path>/sweep.json`, its configuration. Each task does a part of the runs, each of them
/// with options.slurm.gpus_per_run by launch_multi_gpu.sh, which has to lie beside the program; shortly
/// before its time is up it is told to end as by SIGTERM, and with --checkpoint_every queued again. Returns
/// the script's path. Throws ConfigError.
std::filesystem::path write_slurm_script(const SweepOptions& options, std::size_t runs);

}  // namespace clip_lora::cli
