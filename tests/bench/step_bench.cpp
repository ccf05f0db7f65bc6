// One training iteration with random weights of the true scale: batch 32, rank 2, every other option at its
// default, as the training loop runs it. Each combination of backbone and number of classes is a benchmark of
// its own.
#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "bench/program.hpp"
#include "bench/step_inputs.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/lora_adapter.hpp"

namespace {

using namespace clip_lora;
using bench::Settings;

constexpr std::size_t kBatches = 16;  // that the loop cycles through

/// A step with the adapter that it trains.
struct Training {
  Training(const model::Clip& clip, const lora::LoraOptions& lora, const model::Prompts& prompts,
           const engine::TrainingStepOptions& options)
      : adapter(clip, lora), step(clip, adapter, prompts, options) {}

  lora::LoraAdapter adapter;
  engine::TrainingStep step;
};

/// What one timed iteration is.
std::function<void()> training_run(const std::string& backbone, std::int64_t classes,
                                   const at::Tensor& pictures, const Settings& settings) {
  auto clip = bench::random_clip(backbone, settings);
  lora::LoraOptions lora;
  lora.rank = settings.rank;
  lora.encoder = settings.encoder;
  const auto prompts = model::make_prompts(bench::imagenet_prompts(classes)).to(settings.device);
  engine::TrainingStepOptions options;
  options.total_iterations = 1'000'000;
  options.batch_size = bench::kBatch;
  options.pictures = pictures;
  options.largest_side_px = bench::kPictureWidth;
  const auto training = std::make_shared<Training>(clip, lora, prompts, options);
  const auto batches = bench::random_batches(kBatches, classes, clip->architecture().image_size_px, settings);
  return [training, batches, next = std::size_t{0}]() mutable {
    const auto& batch = batches[next++ % kBatches];
    training->step.run(batch.images, batch.labels);
  };
}

void training_step(benchmark::State& state, const std::string& backbone, const Settings& settings) {
  const at::Tensor pictures = settings.device.is_cuda() ? bench::random_pictures(settings) : at::Tensor();
  bench::reset_peak_memory(settings);
  const auto run = training_run(backbone, state.range(0), pictures, settings);
  bench::report(state, bench::time_loop(settings, run));
  bench::report_peak_memory(state, settings, pictures.defined() ? pictures.numel() : 0);
}

void add_benchmarks(const Settings& settings) {
  for (const std::string backbone : {"ViT-B/16", "ViT-B/32", "ViT-L/14"}) {
    const auto body = [backbone, settings](benchmark::State& state) {
      bench::guarded(state, [&] { training_step(state, backbone, settings); });
    };
    benchmark::RegisterBenchmark(("step/" + bench::name_part(backbone)).c_str(), body)
        ->ArgName("classes")
        ->Arg(10)
        ->Arg(100)
        ->Arg(1000)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program(argc, argv, "Times one training iteration.", add_benchmarks);
}
