#include "bench/program.hpp"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <fstream>
#include <iostream>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"
#ifdef CLIP_LORA_WITH_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <cuda_runtime_api.h>
#endif

namespace clip_lora::bench {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

double milliseconds_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

/// Linear between neighbours, as NumPy's.
double quantile(const std::vector<double>& sorted, double fraction) {
  const double place = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Timing summarise(std::vector<double> times, double mean) {
  std::sort(times.begin(), times.end());
  return {static_cast<int>(times.size()), quantile(times, 0.5), quantile(times, 0.25), quantile(times, 0.75),
          mean};
}

std::vector<double> time_on_cuda(const Settings& settings, const std::function<void()>& run) {
  const c10::impl::VirtualGuardImpl guard(settings.device.type());
  const c10::Stream stream = guard.getStream(settings.device);
  std::vector<c10::Event> events;
  for (int i = 0; i <= settings.iterations; ++i) {
    events.emplace_back(settings.device.type(), c10::EventFlag::BACKEND_DEFAULT);
  }
  events[0].record(stream);
  for (std::size_t i = 1; i < events.size(); ++i) {
    run();
    events[i].record(stream);
  }
  wait_for(settings.device);
  std::vector<double> times;
  for (std::size_t i = 1; i < events.size(); ++i) times.push_back(events[i - 1].elapsedTime(events[i]));
  return times;
}

std::vector<double> time_on_cpu(const Settings& settings, const std::function<void()>& run) {
  std::vector<double> times;
  for (int i = 0; i < settings.iterations; ++i) {
    const auto start = Clock::now();
    run();
    times.push_back(milliseconds_since(start));
  }
  return times;
}

#ifdef CLIP_LORA_WITH_CUDA
void limit_memory(at::Device device, double gib) {
  at::empty({1}, device);  // the allocator has to be there
  std::size_t free = 0, total = 0;
  C10_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  const double fraction = gib * kGib / static_cast<double>(total);
  c10::cuda::CUDACachingAllocator::setMemoryFraction(std::min(fraction, 1.0), device.index());
}
#endif

/// The process's largest resident memory.
double largest_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    double kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

/// The flags as they are given.
struct Flags {
  std::string device = "auto";
  std::string precision = "auto";
  int iterations = 0;
  int warm_up = -1;
  int rank = 2;
  std::string encoder = "both";
  int threads = 0;
  double memory_gib = 0;
};

void bind(CLI::App& app, Flags& flags) {
  app.add_option("--device", flags.device, "auto, cpu or cuda[:N]")->capture_default_str();
  app.add_option("--precision", flags.precision, "auto (fp16 on CUDA, fp32 on the CPU), fp32, fp16 or bf16")
      ->capture_default_str();
  app.add_option("--iterations", flags.iterations, "timed ones; by default 200 on CUDA and 3 on the CPU")
      ->check(CLI::PositiveNumber);
  app.add_option("--warm_up", flags.warm_up, "iterations before them; by default 20 on CUDA and 1 on the CPU")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--r", flags.rank, "the updates' rank")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--encoder", flags.encoder, "which towers are trained: both, text or vision")
      ->capture_default_str();
  app.add_option("--threads", flags.threads, "of the CPU; LibTorch's choice by default")
      ->check(CLI::PositiveNumber);
  app.add_option("--memory_gib", flags.memory_gib, "hold LibTorch's allocator to so much of the GPU's memory")
      ->check(CLI::PositiveNumber);
}

Settings settings_of(const Flags& flags) {
  Settings settings;
  settings.device = parse_device(flags.device);
  settings.dtype = parse_precision(flags.precision, settings.device);
  const bool on_cuda = settings.device.is_cuda();
  settings.iterations = flags.iterations > 0 ? flags.iterations : (on_cuda ? 200 : 3);
  settings.warm_up = flags.warm_up >= 0 ? flags.warm_up : (on_cuda ? 20 : 1);
  settings.rank = flags.rank;
  settings.encoder = lora::parse_encoder(flags.encoder);
  if (flags.threads > 0) at::set_num_threads(flags.threads);
  if (flags.memory_gib > 0) {
    if (!on_cuda) throw std::runtime_error("--memory_gib needs a CUDA device");
#ifdef CLIP_LORA_WITH_CUDA
    limit_memory(settings.device, flags.memory_gib);
#endif
  }
  seed_everything(1);
  return settings;
}

}  // namespace

int run_program(int argc, char** argv, const std::string& description,
                const std::function<void(const Settings&)>& add_benchmarks,
                const std::function<void(CLI::App&)>& add_flags) {
  Flags flags;
  CLI::App app(description);
  app.footer(
      "Flags of Google Benchmark, --benchmark_filter=REGEX and --benchmark_format=json among them, work "
      "too.");
  app.allow_extras();
  bind(app, flags);
  add_flags(app);
  CLI11_PARSE(app, argc, argv);
  std::vector<std::string> rest = app.remaining();
  std::vector<char*> arguments{argv[0]};
  for (std::string& word : rest) arguments.push_back(word.data());
  auto count = static_cast<int>(arguments.size());
  benchmark::Initialize(&count, arguments.data());
  if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
  try {
    const Settings settings = settings_of(flags);
    if (settings.device.is_cpu()) reuse_freed_memory();  // as the program does
    benchmark::AddCustomContext("device", describe_device(settings.device));
    benchmark::AddCustomContext("precision", precision_name(settings.dtype));
    benchmark::AddCustomContext("threads", std::to_string(at::get_num_threads()));
    if (flags.memory_gib > 0) {
      std::ostringstream gib;
      gib << flags.memory_gib;
      benchmark::AddCustomContext("memory_limit_gib", gib.str());
    }
    add_benchmarks(settings);
    benchmark::RunSpecifiedBenchmarks();
  } catch (const std::exception& error) {
    std::cerr << argv[0] << ": " << error.what() << "\n";
    return 1;
  }
  benchmark::Shutdown();
  return 0;
}

Timing time_loop(const Settings& settings, const std::function<void()>& run) {
  for (int i = 0; i < settings.warm_up; ++i) run();
  wait_for(settings.device);
  const auto start = Clock::now();
  auto times = settings.device.is_cuda() ? time_on_cuda(settings, run) : time_on_cpu(settings, run);
  const double mean = milliseconds_since(start) / settings.iterations;
  return summarise(std::move(times), mean);
}

Timing time_calls(const Settings& settings, int calls, const std::function<void()>& run) {
  if (!settings.device.is_cuda()) return time_loop(settings, run);
#ifdef CLIP_LORA_WITH_CUDA
  const c10::cuda::CUDAStreamGuard guard(c10::cuda::getStreamFromPool(false, settings.device.index()));
  run();
  wait_for(settings.device);
  at::cuda::CUDAGraph graph;
  graph.capture_begin();
  for (int i = 0; i < calls; ++i) run();
  graph.capture_end();
  Timing timing = time_loop(settings, [&] { graph.replay(); });
  for (double* time : {&timing.median, &timing.lower_quartile, &timing.upper_quartile, &timing.mean})
    *time /= calls;
  return timing;
#else
  (void)calls;
  throw std::logic_error("built without CUDA");
#endif
}

void guarded(benchmark::State& state, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    const std::string message = error.what();
    state.SkipWithError(message.substr(0, message.find('\n')).c_str());
  }
}

void report(benchmark::State& state, const Timing& timing) {
  for (auto _ : state) state.SetIterationTime(timing.median / 1e3);
  state.counters["timed_iterations"] = timing.iterations;
  state.counters["median_ms"] = timing.median;
  state.counters["lower_quartile_ms"] = timing.lower_quartile;
  state.counters["upper_quartile_ms"] = timing.upper_quartile;
  state.counters["mean_ms"] = timing.mean;
}

void reset_peak_memory([[maybe_unused]] const Settings& settings) {
#ifdef CLIP_LORA_WITH_CUDA
  if (settings.device.is_cuda()) {
    c10::cuda::CUDACachingAllocator::emptyCache();
    c10::cuda::CUDACachingAllocator::resetPeakStats(settings.device.index());
  }
#endif
}

void report_peak_memory(benchmark::State& state, [[maybe_unused]] const Settings& settings,
                        std::int64_t resident_bytes) {
  double allocated = largest_resident_bytes(), reserved = allocated;
#ifdef CLIP_LORA_WITH_CUDA
  if (settings.device.is_cuda()) {
    const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(settings.device.index());
    allocated = static_cast<double>(stats.allocated_bytes[0].peak);
    reserved = static_cast<double>(stats.reserved_bytes[0].peak);
  }
#endif
  const auto gib = [&](double bytes) { return (bytes - static_cast<double>(resident_bytes)) / kGib; };
  state.counters["peak_memory_gib"] = gib(allocated);
  state.counters["reserved_memory_gib"] = gib(reserved);
}

model::Clip random_clip(const std::string& backbone, const Settings& settings) {
  const auto architecture = model::published_architecture(backbone);
  if (!architecture) throw std::runtime_error("there is no model '" + backbone + "'");
  model::Clip clip(*architecture);
  model::initialise(clip);
  clip->to(settings.device, settings.dtype);
  return clip;
}

std::vector<std::vector<std::int64_t>> imagenet_prompts(std::int64_t classes,
                                                        std::string_view prompt_template) {
  const text::Tokenizer tokenizer;
  std::vector<std::vector<std::int64_t>> rows;
  for (std::int64_t i = 0; i < classes; ++i) {
    const std::string& name = text::imagenet_class_names()[static_cast<std::size_t>(i)];
    rows.push_back(tokenizer.tokenize(text::fill_template(prompt_template, name)));
  }
  return rows;
}

std::string name_part(std::string backbone) {
  std::replace(backbone.begin(), backbone.end(), '/', '_');
  return backbone;
}

}  // namespace clip_lora::bench
