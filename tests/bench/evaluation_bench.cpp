// What an evaluation does on the device. Encoding images: from bytes to features, with random weights of the true
// scale; with the updates merged it is the plain model's work. Recall: of random features.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "bench/program.hpp"
#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/train/retrieval.hpp"

namespace {

using namespace clip_lora;
using bench::Settings;

void evaluation(benchmark::State& state, const std::string& backbone, const Settings& settings) {
  const at::NoGradGuard no_grad;
  bench::reset_peak_memory(settings);
  auto clip = bench::random_clip(backbone, settings);
  clip->eval();
  const std::int64_t batch = state.range(0), size = clip->architecture().image_size_px;
  const auto bytes = at::TensorOptions(settings.device).dtype(at::kByte);
  const at::Tensor pixels = at::randint(256, {batch, size, size, 3}, bytes);
  engine::ImageEncoder encoder(clip, {});
  const auto timing = bench::time_loop(settings, [&] { encoder.encode(pixels); });
  bench::report(state, timing);
  bench::report_peak_memory(state, settings);
  state.counters["images_per_second"] = 1e3 * static_cast<double>(batch) / timing.median;
}

/// Both ways, with five captions per image as Karpathy's test splits have them.
void recall(benchmark::State& state, const Settings& settings) {
  constexpr std::int64_t kWidth = 512, kCaptionsPerImage = 5;
  const std::int64_t images = state.range(0), captions = state.range(1);
  const auto random_features = [&](std::int64_t rows) {
    const at::Tensor features = at::randn({rows, kWidth}, at::TensorOptions(settings.device));
    return features / features.norm(2, /*dim=*/1, /*keepdim=*/true);
  };
  const at::Tensor image_features = random_features(images), text_features = random_features(captions);
  const at::Tensor image_of_text = at::arange(captions).div(kCaptionsPerImage, "floor").remainder(images);
  bench::reset_peak_memory(settings);
  const auto timing = bench::time_loop(
      settings, [&] { train::compute_recall(image_features, text_features, image_of_text); });
  bench::report(state, timing);
  bench::report_peak_memory(state, settings, (images + captions) * kWidth * 4);
}

void add_benchmarks(const Settings& settings) {
  for (const std::string backbone : {"ViT-B/16", "ViT-B/32", "ViT-L/14"}) {
    const auto body = [backbone, settings](benchmark::State& state) {
      bench::guarded(state, [&] { evaluation(state, backbone, settings); });
    };
    benchmark::RegisterBenchmark(("evaluation/" + bench::name_part(backbone)).c_str(), body)
        ->ArgName("batch")
        ->Arg(256)
        ->Arg(32)
        ->Iterations(1)
        ->UseManualTime()
        ->Unit(benchmark::kMillisecond);
  }
  const auto body = [settings](benchmark::State& state) {
    bench::guarded(state, [&] { recall(state, settings); });
  };
  benchmark::RegisterBenchmark("recall", body)
      ->ArgNames({"images", "captions"})
      ->Args({5'000, 25'000})
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program(argc, argv, "Times what an evaluation does: encoding images, and recall.",
                            add_benchmarks);
}
