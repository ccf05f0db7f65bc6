// Encoding images for an evaluation: from bytes on the device to features, with random weights of the true
// scale. With the updates merged it is the plain model's work.
#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "bench/program.hpp"
#include "clip_lora/engine/encoders.hpp"

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
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run_program(argc, argv, "Times encoding images for an evaluation.", add_benchmarks);
}
