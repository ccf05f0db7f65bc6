#pragma once

#include <benchmark/benchmark.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "clip_lora/lora/options.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/text/prompts.hpp"

namespace clip_lora::bench {

/// What the flags say.
struct Settings {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  int iterations = 0;
  int warm_up = 0;
  int rank = 2;
  lora::Encoder encoder = lora::Encoder::kBoth;
};

/// Milliseconds of one iteration.
struct Timing {
  int iterations = 0;
  double median = 0;
  double lower_quartile = 0;
  double upper_quartile = 0;
  double mean = 0;  ///< of the whole loop, by the host's clock
};

/// Runs Google Benchmark on what `add_benchmarks` registers. `add_flags` adds the program's own flags to
/// those of Settings. Returns the program's exit code.
int run_program(
    int argc, char** argv, const std::string& description,
    const std::function<void(const Settings&)>& add_benchmarks,
    const std::function<void(CLI::App&)>& add_flags = [](CLI::App&) {});

/// Times `run` as the training loop calls it: nothing waits for the device before the end, and each
/// iteration's time is that between two events on the current stream.
Timing time_loop(const Settings& settings, const std::function<void()>& run);

/// Times one of `calls` calls of `run` in a captured CUDA graph, where launching costs nothing, as in the
/// training step. On the CPU as time_loop. Inputs stay in the device's cache if they fit.
Timing time_calls(const Settings& settings, int calls, const std::function<void()>& run);

/// Runs a benchmark's body; what it throws becomes the benchmark's error, and the others go on.
void guarded(benchmark::State& state, const std::function<void()>& body);

/// Sets the benchmark's time to the median, and counters to the rest.
void report(benchmark::State& state, const Timing& timing);

/// From here on the peak is measured. Gives unused blocks of the allocator back.
void reset_peak_memory(const Settings& settings);
/// Counters of the peak since then, less `resident_bytes`: what tensors took, and what the allocator held. On
/// the CPU: the process's.
void report_peak_memory(benchmark::State& state, const Settings& settings, std::int64_t resident_bytes = 0);

/// A model with random weights of the true scale.
model::Clip random_clip(const std::string& backbone, const Settings& settings);

/// Token ids of `prompt_template` for the first `classes` ImageNet names, 77 each.
std::vector<std::vector<std::int64_t>> imagenet_prompts(
    std::int64_t classes, std::string_view prompt_template = text::kDefaultTemplate);

/// "ViT-B/16" as part of a benchmark's name: "ViT-B_16".
std::string name_part(std::string backbone);

}  // namespace clip_lora::bench
