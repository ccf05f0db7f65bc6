#include <benchmark/benchmark.h>

#include <random>

#include "clip_lora/image/preprocess.hpp"

namespace {

clip_lora::image::Image noise(int height, int width) {
  std::mt19937 generator(0);
  clip_lora::image::Image image{height, width, {}};
  image.rgb.resize(static_cast<std::size_t>(height) * static_cast<std::size_t>(width) * 3);
  for (auto& value : image.rgb) {
    value = static_cast<std::uint8_t>(generator());
  }
  return image;
}

// range(0): the picture's width; its height is three quarters of that.
void evaluation_view(benchmark::State& state) {
  const int width = static_cast<int>(state.range(0));
  const clip_lora::image::Image image = noise(width * 3 / 4, width);
  for (auto _ : state) {
    benchmark::DoNotOptimize(clip_lora::image::evaluation_view(image, {}));
  }
}
BENCHMARK(evaluation_view)->Arg(64)->Arg(500)->Arg(2000)->Unit(benchmark::kMillisecond);

void training_view(benchmark::State& state) {
  const int width = static_cast<int>(state.range(0));
  const clip_lora::image::Image image = noise(width * 3 / 4, width);
  std::mt19937_64 generator(0);
  for (auto _ : state) {
    const auto view = clip_lora::image::draw_training_view(image.height, image.width, generator);
    benchmark::DoNotOptimize(clip_lora::image::training_view(image, view, {}));
  }
}
BENCHMARK(training_view)->Arg(64)->Arg(500)->Arg(2000)->Unit(benchmark::kMillisecond);

}  // namespace
