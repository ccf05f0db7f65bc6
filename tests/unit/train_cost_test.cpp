#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/train/cost.hpp"

namespace clip_lora::train {
namespace {

const model::ClipArchitecture kArchitecture = {
    .vision = {.width = 64, .layers = 3, .mlp_width = 256, .heads = 1},
    .text = {.width = 32, .layers = 2, .mlp_width = 128, .heads = 1},
    .patch_size_px = 16,
    .image_size_px = 32,
    .context_length = 77,
    .vocabulary = 49408,
    .embedding = 32};

TEST(EstimatedOperations, CountTheProductsOfTheBlocks) {
  // 5 tokens of an image: q, k, v and out 4 · 64², the perceptron 2 · 64 · 256, twice per token; scores and
  // sums.
  const double image = 3.0 * (5.0 * 2.0 * (4.0 * 64 * 64 + 2.0 * 64 * 256) + 2.0 * 2.0 * 5 * 5 * 64);
  EXPECT_DOUBLE_EQ(estimated_operations(kArchitecture, {.test_images = 7}), 2.0 * 7.0 * image);
  EXPECT_DOUBLE_EQ(estimated_operations(kArchitecture, {.iterations = 10, .batch_size = 4}),
                   10.0 * 4.0 * 2.0 * image);
  const double prompt = 2.0 * (16.0 * 2.0 * (4.0 * 32 * 32 + 2.0 * 32 * 128) + 2.0 * 2.0 * 16 * 16 * 32);
  EXPECT_DOUBLE_EQ(estimated_operations(kArchitecture, {.iterations = 10, .prompts = 3}),
                   10.0 * 3.0 * 2.0 * prompt);
}

TEST(MeasureOperationsPerSecond, IsANumberThatAProcessorCanReach) {
  const double speed = measure_operations_per_second(at::kCPU, at::kFloat);
  EXPECT_GT(speed, 1e7);
  EXPECT_LT(speed, 1e15);
}

}  // namespace
}  // namespace clip_lora::train
