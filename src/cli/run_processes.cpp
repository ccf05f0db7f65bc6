#include "run_processes.hpp"

#include <ATen/ATen.h>

#include <string>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {
namespace {

/// What several processes cannot do. Throws ConfigError.
void require_shared_work(const RunOptions& options, const engine::ProcessEnvironment& environment) {
  const std::string processes = std::to_string(environment.size) + " processes (WORLD_SIZE)";
  if (!trains_anything(options)) {
    const std::string flag = options.output.eval_only ? "--eval_only" : "--method " + options.adapter.method;
    throw ConfigError(flag + ": there is nothing to train in " + processes + " (hint: start one)");
  }
  if (options.training.batch_size < environment.size) {
    throw ConfigError("--batch_size " + std::to_string(options.training.batch_size) + ": expected at least " +
                      std::to_string(environment.size) + ", since it is shared out to " + processes);
  }
  if (options.compute.device.starts_with("cuda:")) {
    throw ConfigError("--device " + options.compute.device + ": expected auto, cuda or cpu, since each of " +
                      processes + " takes the GPU of its LOCAL_RANK");
  }
}

}  // namespace

std::shared_ptr<engine::ProcessGroup> join_processes(RunOptions& options) {
  const auto environment = engine::read_process_environment();
  if (!environment) return nullptr;
  require_shared_work(options, *environment);
  if (parse_device(options.compute.device).is_cuda() && environment->local_rank > 0)
    options.compute.device = "cuda:" + std::to_string(environment->local_rank);
  if (environment->rank > 0) {
    options.compute.quiet = true;
    options.compute.verbose = false;
  }
  return std::make_shared<engine::ProcessGroup>(*environment, parse_device(options.compute.device));
}

void require_same_training(engine::ProcessGroup& processes, const TrainingFiles& files, at::Device device) {
  train::TrainingSettings settings = files.settings;
  settings["--device"] = device.is_cuda() ? "cuda" : "cpu";
  settings["checkpoint"] =
      files.resumed ? "after iteration " + std::to_string(files.resumed->iteration) : "none";
  processes.barrier();  // reading the data takes some longer than others
  processes.require_same(settings);
}

double of_first(engine::ProcessGroup& processes, const std::function<double()>& compute) {
  const at::Tensor value = at::zeros({1}, at::kDouble);
  if (processes.is_first()) value.fill_(compute());
  processes.barrier();
  processes.broadcast(value);
  return value.item<double>();
}

}  // namespace clip_lora::cli
