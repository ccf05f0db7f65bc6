// One training iteration with random weights of the true scale, as the training loop runs it: LoRA's with
// batch 32 and rank 2, by backbone and number of classes, and R-Adapter's on pairs of image and text with
// full rank, by batch; every other option at its default.
#include <ATen/ATen.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/program.hpp"
#include "bench/step_inputs.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"

namespace {

using namespace clip_lora;
using bench::Settings;

constexpr std::size_t kBatches = 16;  // that the loop cycles through

/// A step with the adapter that it trains.
struct Training {
  Training(const model::Clip& clip, const lora::AdapterOptions& adapter_options,
           const model::Prompts& prompts, const engine::TrainingStepOptions& options)
      : adapter(lora::make_adapter(clip, adapter_options)), step(clip, *adapter, prompts, options) {}

  std::shared_ptr<lora::Adapter> adapter;
  engine::TrainingStep step;
};

engine::TrainingStepOptions step_options(const at::Tensor& pictures, std::int64_t batch) {
  engine::TrainingStepOptions options;
  options.total_iterations = 1'000'000;
  options.batch_size = batch;
  options.pictures = pictures;
  options.largest_side_px = bench::kPictureWidth;
  return options;
}

/// What one timed iteration of LoRA is.
std::function<void()> class_run(const std::string& backbone, std::int64_t classes, const at::Tensor& pictures,
                                const Settings& settings) {
  auto clip = bench::random_clip(backbone, settings);
  lora::AdapterOptions adapter;
  adapter.lora.rank = settings.rank;
  adapter.lora.encoder = settings.encoder;
  const auto prompts = model::make_prompts(bench::imagenet_prompts(classes)).to(settings.device);
  const auto training =
      std::make_shared<Training>(clip, adapter, prompts, step_options(pictures, bench::kBatch));
  const auto batches =
      bench::random_batches(kBatches, bench::kBatch, classes, clip->architecture().image_size_px, settings);
  return [training, batches, next = std::size_t{0}]() mutable {
    const auto& batch = batches[next++ % kBatches];
    training->step.run(batch.images, batch.labels);
  };
}

/// What one timed iteration of R-Adapter is, by the settings of base-to-new.
std::function<void()> pair_run(const std::string& backbone, std::int64_t batch_size, std::int64_t classes,
                               const at::Tensor& pictures, const Settings& settings) {
  auto clip = bench::random_clip(backbone, settings);
  lora::AdapterOptions adapter;
  adapter.method = "r_adapter";
  engine::TrainingStepOptions options = step_options(pictures, batch_size);
  options.loss = engine::Loss::kContrastive;
  options.margin = 0.1;
  options.optimiser = {.learning_rate = 5e-4,
                       .final_learning_rate = 0.0,
                       .weight_decay = 0.0,
                       .warmup_iterations = 500,
                       .largest_gradient_norm = 1.0,
                       .average_decay = 0.9};
  const auto training = std::make_shared<Training>(clip, adapter, model::Prompts(), options);
  const auto batches =
      bench::random_batches(kBatches, batch_size, classes, clip->architecture().image_size_px, settings);
  std::vector<std::vector<std::vector<std::int64_t>>> rows;
  for (const auto& prompt_template : text::imagenet_templates())
    rows.push_back(bench::imagenet_prompts(classes, prompt_template));
  std::mt19937_64 generator(1);
  std::vector<model::Prompts> texts;
  for (const auto& batch : batches) texts.push_back(bench::random_texts(rows, batch.labels, generator));
  return [training, batches, texts, next = std::size_t{0}]() mutable {
    const std::size_t i = next++ % kBatches;
    training->step.run(batches[i].images, batches[i].labels, texts[i]);
  };
}

/// Times what `make_run` makes of the pictures on the device.
void training_step(benchmark::State& state, const Settings& settings,
                   const std::function<std::function<void()>(const at::Tensor& pictures)>& make_run) {
  const at::Tensor pictures = settings.device.is_cuda() ? bench::random_pictures(settings) : at::Tensor();
  bench::reset_peak_memory(settings);
  const auto run = make_run(pictures);
  bench::report(state, bench::time_loop(settings, run));
  bench::report_peak_memory(state, settings, pictures.defined() ? pictures.numel() : 0);
}

void add_benchmarks(const Settings& settings) {
  for (const std::string backbone : {"ViT-B/16", "ViT-B/32", "ViT-L/14"}) {
    const auto of_classes = [backbone, settings](benchmark::State& state) {
      bench::guarded(state, [&] {
        training_step(state, settings, [&](const at::Tensor& pictures) {
          return class_run(backbone, state.range(0), pictures, settings);
        });
      });
    };
    benchmark::RegisterBenchmark(("step/" + bench::name_part(backbone)).c_str(), of_classes)
        ->ArgName("classes")
        ->Arg(10)
        ->Arg(100)
        ->Arg(1000)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  const auto of_pairs = [settings](benchmark::State& state) {
    bench::guarded(state, [&] {
      training_step(state, settings, [&](const at::Tensor& pictures) {
        return pair_run("ViT-B/16", state.range(0), state.range(1), pictures, settings);
      });
    });
  };
  benchmark::RegisterBenchmark("step/ViT-B_16/method:r_adapter/loss:mpm_nce", of_pairs)
      ->ArgNames({"batch", "classes"})
      ->Args({32, 100})
      ->Args({512, 1000})
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program(argc, argv, "Times one training iteration.", add_benchmarks);
}
