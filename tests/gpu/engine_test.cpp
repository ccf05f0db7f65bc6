#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"
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

  Trained trained(at::Device device, at::ScalarType dtype, const lora::LoraOptions& lora_options, int passes,
                  bool updates, const engine::TrainingStepOptions& options = {}) const {
    return trained(device, dtype, of_lora(lora_options), passes, updates, options);
  }

  /// `passes` of compute_gradients, or iterations if `updates`. With the contrastive loss the images have
  /// texts of their own, other ones in each pass.
  Trained trained(at::Device device, at::ScalarType dtype, const lora::AdapterOptions& adapter_options,
                  int passes, bool updates, engine::TrainingStepOptions options = {}) const {
    at::manual_seed(7);
    model::Clip clip = random_clip(tiny_architecture());
    const auto on_cpu = lora::make_adapter(clip, adapter_options);
    randomise(*on_cpu);
    clip->to(device, dtype);
    const auto made = lora::make_adapter(clip, adapter_options);
    const lora::Adapter& adapter = *made;
    assign(adapter, on_cpu->state_dict());
    options.total_iterations = passes;
    options.dropout_seed = 5;
    options.batch_size = pixels_.size(0);
    Trained result;
    const model::Prompts prompts = model::make_prompts(rows_);
    const bool has_texts = options.loss == engine::Loss::kContrastive;
    engine::TrainingStep step(clip, adapter, has_texts ? model::Prompts() : prompts, options);
    for (int i = 0; i < passes; ++i) {
      const at::Tensor chosen = (at::arange(pixels_.size(0), at::kLong) + i).remainder(prompts.ids.size(0));
      const model::Prompts texts = {prompts.ids.index_select(0, chosen), prompts.eot.index_select(0, chosen)};
      const auto loss = has_texts ? updates ? step.run(pixels_, labels_, texts)
                                            : step.compute_gradients(pixels_, labels_, texts)
                        : updates ? step.run(pixels_, labels_)
                                  : step.compute_gradients(pixels_, labels_);
      result.losses.push_back(loss.item<double>());
    }
    step.show_averages(true);  // if there are any
    for (const auto& [name, tensor] : adapter.state_dict()) {
      if (tensor.requires_grad())
        result.gradients[name] =
            tensor.grad().to(at::kCPU, at::kDouble) / (updates ? 1.0 : step.loss_scale());
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

  static lora::AdapterOptions residual(std::int64_t rank, double drop, lora::DropUnit unit) {
    lora::AdapterOptions options;
    options.method = "r_adapter";
    options.r_adapter.rank = rank;
    options.r_adapter.drop = drop;
    options.r_adapter.drop_unit = unit;
    return options;
  }

  std::vector<std::vector<std::int64_t>> rows_ = random_prompt_rows(tiny_architecture(), kEnds);
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

TEST_F(EngineOnCuda, ResidualAdaptersEqualTheCpus) {
  for (const auto unit : {lora::DropUnit::kPosition, lora::DropUnit::kSample, lora::DropUnit::kModule}) {
    for (const std::int64_t rank : {0, 3}) {
      for (const auto loss : {engine::Loss::kCrossEntropy, engine::Loss::kContrastive}) {
        const auto options = residual(rank, 0.3, unit);
        const engine::TrainingStepOptions step_options = {
            .loss = loss, .logit_scale = 10.0, .margin = 0.1, .label_smoothing = 0.05};
        const auto expected = trained(at::kCPU, at::kFloat, options, 3, false, step_options);
        const auto single = trained(at::kCUDA, at::kFloat, options, 3, false, step_options);
        for (std::size_t i = 0; i < 3; ++i)
          EXPECT_NEAR(single.losses[i], expected.losses[i], 1e-4 * expected.losses[i]);
        for (const auto& [name, tensor] : expected.gradients) {
          if (tensor.numel() == 1) continue;  // s: a sum of which hardly anything may be left
          EXPECT_TRUE(close_in_norm(single.gradients.at(name), tensor, 1e-3)) << name;
        }
      }
    }
  }
}

TEST_F(EngineOnCuda, ReplaysTakeEachBatchsTexts) {
  // The last two have more rows than a tile of attention.
  rows_ = random_prompt_rows(tiny_architecture(), {9, 3, 12, 1, 7, 9, 20, 40});
  const auto options = residual(0, 0.3, lora::DropUnit::kSample);
  const engine::TrainingStepOptions step_options = {.loss = engine::Loss::kContrastive, .logit_scale = 10.0};
  const auto expected = trained(at::kCPU, at::kFloat, options, 12, false, step_options);
  const auto single = trained(at::kCUDA, at::kFloat, options, 12, false, step_options);
  const auto half = trained(at::kCUDA, at::kHalf, options, 12, false, step_options);
  for (std::size_t i = 0; i < 12; ++i) {
    EXPECT_NEAR(single.losses[i], expected.losses[i], 1e-4 * expected.losses[i]) << i;
    EXPECT_NEAR(half.losses[i], expected.losses[i], 2e-2 * expected.losses[i]) << i;
  }
}

TEST_F(EngineOnCuda, AveragesOfClippedUpdatesEqualTheCpus) {
  const auto options = residual(0, 0.2, lora::DropUnit::kPosition);
  engine::TrainingStepOptions step_options = {.loss = engine::Loss::kContrastive, .logit_scale = 10.0};
  step_options.optimiser = {.warmup_iterations = 2, .largest_gradient_norm = 1.0, .average_decay = 0.9};
  const auto expected = trained(at::kCPU, at::kFloat, options, 6, true, step_options);
  const auto actual = trained(at::kCUDA, at::kFloat, options, 6, true, step_options);
  expect_close(actual.adapter, expected.adapter, 1e-3);
}

TEST_F(EngineOnCuda, MethodsLeftToAutogradEqualTheCpus) {
  lora::AdapterOptions options;
  options.method = "lora_xs";
  options.lora.rank = 4;
  const auto expected = trained(at::kCPU, at::kFloat, options, 3, false, {.logit_scale = 10.0});
  const auto actual = trained(at::kCUDA, at::kFloat, options, 3, false, {.logit_scale = 10.0});
  expect_close(actual.gradients, expected.gradients, 1e-3);
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
    const auto first = trained(at::kCUDA, dtype, lora::LoraOptions(), 30, true),
               again = trained(at::kCUDA, dtype, lora::LoraOptions(), 30, true);
    EXPECT_EQ(first.losses, again.losses);
    for (const auto& [name, tensor] : first.adapter)
      EXPECT_TRUE(at::equal(tensor, again.adapter.at(name))) << name;
  }
}

TEST_F(EngineOnCuda, SharingThePromptsPrefixChangesNothing) {
  rows_ = random_prompt_rows(tiny_architecture(), {9, 6, 12, 7, 7, 9});
  for (auto& row : rows_) std::copy_n(rows_.front().begin(), 5, row.begin());
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

TEST_F(EngineOnCuda, AStateContinuesInAnotherStepBitForBit) {
  // Float16 begins with iterations whose gradients overflow, so that the scale and its counters move too.
  // A step that goes on runs eagerly and captures where the first one has replayed long since.
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    at::manual_seed(7);
    model::Clip clip = random_clip(tiny_architecture());
    clip->to(at::kCUDA, dtype);
    const auto options = every_projection(0.25);
    const auto run = [&](std::int64_t first, std::int64_t end, const io::StateDict* state,
                         io::StateDict& adapter_out) {
      at::manual_seed(state == nullptr ? 5 : 99);
      const lora::LoraAdapter adapter(clip, options);
      engine::TrainingStep step(clip, adapter, model::make_prompts(rows_),
                                {.total_iterations = 12, .dropout_seed = 3, .batch_size = pixels_.size(0)});
      if (state != nullptr) step.load_state(*state);
      EXPECT_EQ(step.iteration(), first);
      for (std::int64_t i = first; i < end; ++i) {
        const std::int64_t count = i % 4 == 3 ? 3 : 5;
        step.run(pixels_.narrow(0, 0, count), labels_.narrow(0, 0, count));
      }
      for (const auto& [name, tensor] : adapter.state_dict())
        adapter_out[name] = tensor.detach().cpu().clone();
      return step.state();
    };
    io::StateDict whole, rest, unused;
    const io::StateDict whole_state = run(0, 12, nullptr, whole);
    for (const std::int64_t pause : {1, 2, 5, 11}) {
      const io::StateDict state = run(0, pause, nullptr, unused);
      const io::StateDict rest_state = run(pause, 12, &state, rest);
      for (const auto& [name, tensor] : whole)
        EXPECT_TRUE(identical(rest.at(name), tensor)) << name << " " << pause;
      for (const auto& [name, tensor] : whole_state)
        EXPECT_TRUE(identical(rest_state.at(name), tensor)) << name << " " << pause;
    }
  }
}

TEST_F(EngineOnCuda, MeasurementsAreTheLossTheNormAndTheScaleOfTheIteration) {
  at::manual_seed(7);
  model::Clip clip = random_clip(tiny_architecture());
  clip->to(at::kCUDA, at::kHalf);
  const lora::LoraAdapter adapter(clip, every_projection(0.0));
  engine::TrainingStep step(clip, adapter, model::make_prompts(rows_),
                            {.total_iterations = 6, .batch_size = pixels_.size(0)});
  std::function<engine::Measurements()> earlier;
  double loss = 0.0, norm = 0.0, scale = 0.0;
  for (int i = 0; i < 6; ++i) {  // eager, captured and replayed
    const double next_scale = step.loss_scale();
    const double next_loss = step.run(pixels_, labels_).item<double>();
    if (earlier) {  // another iteration has run since
      const engine::Measurements measured = earlier();
      EXPECT_EQ(measured.loss, loss);
      EXPECT_EQ(measured.loss_scale, scale);
      if (std::isfinite(norm)) {
        EXPECT_NEAR(measured.gradient_norm, norm, 1e-4 * norm);  // summed in float32
      }
    }
    double squares = 0.0;
    for (const auto& [name, tensor] : adapter.state_dict())
      squares += tensor.grad().to(at::kDouble).square().sum().item<double>();
    loss = next_loss;
    scale = next_scale;
    norm = std::sqrt(squares) / scale;
    earlier = step.measure();
  }
}

}  // namespace
}  // namespace clip_lora::testing
