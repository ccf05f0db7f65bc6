// One training iteration of ViT-B/16 with random weights of the true scale: batch 32, r 2, every projection
// default.
#include <ATen/ATen.h>
#include <benchmark/benchmark.h>
#include <torch/cuda.h>

#include <chrono>
#include <string>
#include <vector>

#include "clip_lora/core/device.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace {

using namespace clip_lora;

constexpr std::int64_t kBatch = 32;

/// Prompts of the first `classes` ImageNet names.
model::Prompts imagenet_prompts(std::int64_t classes) {
  const text::Tokenizer tokenizer;
  std::vector<std::vector<std::int64_t>> rows;
  for (std::int64_t i = 0; i < classes; ++i) {
    const std::string& name = text::imagenet_class_names()[static_cast<std::size_t>(i)];
    rows.push_back(tokenizer.tokenize(text::fill_template(text::kDefaultTemplate, name)));
  }
  return model::make_prompts(rows);
}

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

void training_step(benchmark::State& state) {
  const std::int64_t classes = state.range(0);
  const at::Device device = parse_device("auto");
  const at::ScalarType dtype = parse_precision("auto", device);
  seed_everything(1);
  model::Clip clip(*model::published_architecture("ViT-B/16"));
  model::initialise(clip);
  clip->to(device, dtype);
  const lora::Adapter adapter(clip, {});
  engine::TrainingStep step(clip, adapter, imagenet_prompts(classes).to(device),
                            {.total_iterations = 1'000'000});
  const auto options = at::TensorOptions(device);
  const at::Tensor images = at::randn({kBatch, 3, 224, 224}, options.dtype(dtype));
  const at::Tensor labels = at::randint(classes, {kBatch}, options.dtype(at::kLong));
  for (int warm_up = 0; warm_up < (device.is_cuda() ? 20 : 1); ++warm_up) step.run(images, labels);
  wait_for(device);
  for (auto _ : state) {
    const auto start = std::chrono::steady_clock::now();
    step.run(images, labels);
    wait_for(device);
    state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  state.SetLabel(describe_device(device) + ", " + precision_name(dtype));
}
BENCHMARK(training_step)->Arg(10)->Arg(100)->Arg(1000)->UseManualTime()->Unit(benchmark::kMillisecond);

}  // namespace
