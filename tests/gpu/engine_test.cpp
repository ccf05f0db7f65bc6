#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

const std::vector<std::int64_t> kEnds = {9, 3, 12, 1, 7, 9};

/// One task, to be trained on either device: the adapter and the dropout masks are the same on both.
class EngineOnCuda : public ::testing::Test {
 protected:
  void SetUp() override { CLIP_LORA_NEEDS_GPU(); }

  struct Trained {
    std::vector<double> losses;
    io::StateDict gradients;  // of the last iteration, not scaled, float64 on the CPU
    io::StateDict adapter;    // on the CPU
  };

  /// `passes` of compute_gradients, or iterations if `updates`.
  Trained trained(at::Device device, at::ScalarType dtype, const lora::LoraOptions& lora_options, int passes,
                  bool updates, engine::TrainingStepOptions options = {}) const {
    at::manual_seed(7);
    model::Clip clip = random_clip(tiny_architecture());
    const lora::Adapter on_cpu(clip, lora_options);
    randomise(on_cpu);
    clip->to(device, dtype);
    const lora::Adapter adapter(clip, lora_options);
    for (const auto& [name, tensor] : adapter.state_dict()) {
      const at::NoGradGuard no_grad;
      tensor.copy_(on_cpu.state_dict().at(name));
    }
    options.total_iterations = passes;
    options.dropout_seed = 5;
    options.batch_size = pixels_.size(0);
    Trained result;
    engine::TrainingStep step(clip, adapter, model::make_prompts(rows_), options);
    for (int i = 0; i < passes; ++i) {
      const auto loss = updates ? step.run(pixels_, labels_) : step.compute_gradients(pixels_, labels_);
      result.losses.push_back(loss.item<double>());
    }
    for (const auto& [name, tensor] : adapter.state_dict()) {
      result.gradients[name] = tensor.grad().to(at::kCPU, at::kDouble) / (updates ? 1.0 : step.loss_scale());
      result.adapter[name] = tensor.detach().cpu().clone();
    }
    return result;
  }

  static void expect_close(const io::StateDict& actual, const io::StateDict& expected, double tolerance) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected) {
      EXPECT_TRUE(close_in_norm(actual.at(name), tensor, tolerance)) << name;
    }
  }

  static lora::LoraOptions every_projection(double dropout) {
    lora::LoraOptions options;
    options.projections.o = true;
    options.dropout = dropout;
    return options;
  }

  const std::vector<std::vector<std::int64_t>> rows_ = random_prompt_rows(tiny_architecture(), kEnds);
  const std::int64_t size_px_ = tiny_architecture().image_size_px;
  const at::Tensor pixels_ = at::randint(256, {5, size_px_, size_px_, 3}, at::kByte);
  const at::Tensor labels_ = at::randint(static_cast<std::int64_t>(kEnds.size()), {5}, at::kLong);
};

TEST_F(EngineOnCuda, GradientsWithDropoutEqualTheCpus) {
  const auto options = every_projection(0.25);
  const auto expected = trained(at::kCPU, at::kFloat, options, 3, false);
  const auto single = trained(at::kCUDA, at::kFloat, options, 3, false);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(single.losses[i], expected.losses[i], 1e-4 * expected.losses[i]);
  expect_close(single.gradients, expected.gradients, 1e-3);  // softmax of 100 · cosine magnifies rounding
  const auto half = trained(at::kCUDA, at::kHalf, options, 3, false);
  for (std::size_t i = 0; i < 3; ++i)
    EXPECT_NEAR(half.losses[i], expected.losses[i], 2e-2 * expected.losses[i]);
  expect_close(half.gradients, expected.gradients, 5e-2);
}

TEST_F(EngineOnCuda, RanksOfAllSizesEqualTheCpus) {
  for (const std::int64_t rank : {1, 4, 8, 16, 64}) {
    auto options = every_projection(0.5);
    options.rank = rank;
    expect_close(trained(at::kCUDA, at::kFloat, options, 1, false).gradients,
                 trained(at::kCPU, at::kFloat, options, 1, false).gradients, 1e-3);
  }
}

TEST_F(EngineOnCuda, AReplayedGraphGivesTheBitsOfTheFirstRun) {
  const auto options = every_projection(0.0);
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto once = trained(at::kCUDA, dtype, options, 1, false);
    const auto replayed = trained(at::kCUDA, dtype, options, 4, false);
    for (const double loss : replayed.losses) EXPECT_EQ(loss, once.losses.front());
    for (const auto& [name, tensor] : once.gradients)
      EXPECT_TRUE(at::equal(tensor, replayed.gradients.at(name)));
  }
}

TEST_F(EngineOnCuda, ReplaysDrawNewMasks) {
  const auto result = trained(at::kCUDA, at::kFloat, every_projection(0.25), 6, false);
  for (std::size_t i = 1; i < 6; ++i) EXPECT_NE(result.losses[i], result.losses[i - 1]);
}

TEST_F(EngineOnCuda, TheSameSeedGivesTheSameAdapterBitForBit) {
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    const auto first = trained(at::kCUDA, dtype, {}, 30, true),
               again = trained(at::kCUDA, dtype, {}, 30, true);
    EXPECT_EQ(first.losses, again.losses);
    for (const auto& [name, tensor] : first.adapter)
      EXPECT_TRUE(at::equal(tensor, again.adapter.at(name))) << name;
  }
}

TEST_F(EngineOnCuda, SharingThePromptsPrefixChangesNothing) {
  const auto options = every_projection(0.0);
  expect_close(trained(at::kCUDA, at::kFloat, options, 2, false, {.share_prefix = true}).gradients,
               trained(at::kCUDA, at::kFloat, options, 2, false, {.share_prefix = false}).gradients, 1e-5);
}

TEST_F(EngineOnCuda, LittleMemoryChangesNothingButTheTime) {
  const auto options = every_projection(0.25);
  expect_close(trained(at::kCUDA, at::kFloat, options, 3, false, {.memory_bytes = 1}).gradients,
               trained(at::kCUDA, at::kFloat, options, 3, false).gradients, 1e-4);
}

TEST_F(EngineOnCuda, EncodesPicturesAsTheCpuDoes) {
  at::manual_seed(7);
  model::Clip clip = random_clip(tiny_architecture());
  const auto expected = engine::ImageEncoder(clip, {}).encode(pixels_).clone();
  clip->to(at::kCUDA);
  engine::ImageEncoder encoder(clip, {});
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(close(encoder.encode(pixels_).cpu(), expected, 1e-5));
  EXPECT_TRUE(close(encoder.encode(pixels_.narrow(0, 1, 2)).cpu(), expected.narrow(0, 1, 2), 1e-5));
}

}  // namespace
}  // namespace clip_lora::testing
