#include "clip_lora/train/cost.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <chrono>

namespace clip_lora::train {
namespace {

constexpr double kTokensPerPrompt = 16.0;

/// Of one sequence of `tokens` tokens forward through all blocks: 2 operations per weight and token, of which
/// a block has 4 D² in its attention and 2 D · M in its perceptron, and 4 · D per pair of tokens.
double forward_operations(const model::TowerArchitecture& tower, double tokens) {
  const auto width = static_cast<double>(tower.width);
  const double weights = 4.0 * width * width + 2.0 * width * static_cast<double>(tower.mlp_width);
  return static_cast<double>(tower.layers) * (2.0 * weights * tokens + 4.0 * width * tokens * tokens);
}

}  // namespace

double estimated_operations(const model::ClipArchitecture& architecture, const Workload& workload) {
  const std::int64_t side = architecture.image_size_px / architecture.patch_size_px;
  const double image = forward_operations(architecture.vision, static_cast<double>(side * side + 1));
  const double prompt = forward_operations(architecture.text, kTokensPerPrompt);
  const double iteration = 2.0 * (image * static_cast<double>(workload.batch_size) +
                                  prompt * static_cast<double>(workload.prompts));
  return iteration * static_cast<double>(workload.iterations) +
         2.0 * image * static_cast<double>(workload.test_images);
}

double measure_operations_per_second(at::Device device, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const std::int64_t size = device.is_cuda() ? 4096 : 512;
  constexpr int kProducts = 4;
  const at::Tensor matrix = at::ones({size, size}, at::TensorOptions(device).dtype(type));
  const auto products = [&](int count) {
    at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kFloat));
    for (int i = 0; i < count; ++i) sum += at::mm(matrix, matrix)[0][0];
    sum.item();  // waits for the device
  };
  products(1);  // the library prepares itself
  const auto start = std::chrono::steady_clock::now();
  products(kProducts);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const auto edge = static_cast<double>(size);
  return kProducts * 2.0 * edge * edge * edge / seconds.count();
}

}  // namespace clip_lora::train
