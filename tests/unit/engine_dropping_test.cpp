// R-Adapter with dropping: explicit passes against autograd through the definition, and what is drawn.
#include <algorithm>

#include "clip_lora/ops/contrastive.hpp"
#include "clip_lora/ops/dropout.hpp"
#include "engine_setting.hpp"
#include "support/dropping_model.hpp"

namespace clip_lora::testing {
namespace {

using lora::DropUnit;

/// R-Adapter with dropping.
class Dropped : public ::testing::TestWithParam<std::tuple<DropUnit, std::int64_t, Loss>> {
 protected:
  lora::AdapterOptions adapter_options() const {
    auto options = options_of("r_adapter");
    options.r_adapter.drop = 0.4;
    options.r_adapter.drop_unit = unit();
    options.r_adapter.rank = std::get<1>(GetParam());
    return options;
  }
  DropUnit unit() const { return std::get<0>(GetParam()); }
  Loss loss() const { return std::get<2>(GetParam()); }

  /// The factors that a pass of a step, from 0 on, draws: a stream of its own for each module.
  Dropping drawn(std::int64_t pass) const {
    return [pass, rate = adapter_options().r_adapter.drop, unit = unit()](
               const Module& module, std::int64_t batch, std::int64_t length) {
      const std::int64_t stream =
          2 * (2 * module.block + (module.tower == lora::Tower::kVision ? 1 : 0)) + (module.is_mlp ? 1 : 0);
      const ops::Dropout draws = {.rate = rate, .state = at::tensor({kSeed, pass}), .stream = stream};
      const std::int64_t count = unit == DropUnit::kPosition ? length : unit == DropUnit::kSample ? batch : 1;
      const at::Tensor factors = ops::dropout_masks(draws, 1, count, 1).flatten() / draws.keep();
      return unit == DropUnit::kSample ? factors.unsqueeze(1) : factors;
    };
  }

  /// What a pass comes to by its definition, through autograd. The adapter stays attached.
  Gradients by_definition(const lora::Adapter& adapter, std::int64_t pass) {
    for (const at::Tensor& parameter : adapter.parameters()) parameter.mutable_grad().reset();
    adapter.attach(setting_.clip);
    const auto images = dropping_image_features(setting_.clip, setting_.images, drawn(pass));
    const auto texts = dropping_text_features(
        setting_.clip, loss() == Loss::kContrastive ? setting_.texts : setting_.classes, drawn(pass));
    const auto options = step_options(loss());
    Gradients expected;
    if (loss() == Loss::kContrastive) {
      const auto result = ops::contrastive_loss(images.detach(), texts.detach(), setting_.labels,
                                                {.logit_scale = options.logit_scale,
                                                 .margin = options.margin,
                                                 .label_smoothing = options.label_smoothing},
                                                true, true);
      expected.loss = result.loss.item<double>();
      torch::autograd::backward({images, texts}, {result.d_image_features, result.d_text_features});
    } else {
      const auto cosines =
          at::matmul(images / images.norm(2, -1, true), (texts / texts.norm(2, -1, true)).t());
      const auto value = at::cross_entropy_loss(options.logit_scale * cosines, setting_.labels);
      expected.loss = value.item<double>();
      value.backward();
    }
    expected.gradients = gradients_of(adapter);
    return expected;
  }

  Setting setting_;
};

INSTANTIATE_TEST_SUITE_P(
    , Dropped,
    ::testing::Combine(::testing::Values(DropUnit::kPosition, DropUnit::kSample, DropUnit::kModule),
                       ::testing::Values(0, 3), ::testing::Values(Loss::kCrossEntropy, Loss::kContrastive)),
    [](const auto& test) {
      return lora::to_string(std::get<0>(test.param)) + "_of_rank_" +
             std::to_string(std::get<1>(test.param)) + "_" + name_of(std::get<2>(test.param));
    });

TEST_P(Dropped, LossAndGradientsAreAutogradsOfTheDefinitionInEachPassAnew) {
  const auto adapter = random_adapter(setting_, adapter_options());
  std::vector<Gradients> passes;
  {
    engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, loss()), step_options(loss()));
    for (int pass = 0; pass < 3; ++pass) {
      const double value = compute(step, setting_, loss());
      passes.push_back({value, gradients_of(*adapter)});
    }
  }
  for (std::size_t pass = 0; pass < passes.size(); ++pass) {
    SCOPED_TRACE(pass);
    expect_close(passes[pass], by_definition(*adapter, static_cast<std::int64_t>(pass)),
                 1e-4);  // float32, sums in another order
  }
}

TEST_P(Dropped, GradientsAreTheDifferencesOfTheLoss) {
  expect_the_differences(setting_, *random_adapter(setting_, adapter_options()), step_options(loss()));
}

TEST_P(Dropped, SeveralPartsDrawWhatTheWholeDraws) {
  const auto adapter = random_adapter(setting_, adapter_options());
  auto little = step_options(loss());
  little.memory_bytes = 1;
  const auto whole = gradients_with(setting_, *adapter, step_options(loss()));
  expect_close(gradients_with(setting_, *adapter, little), whole, 1e-5);
  engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, loss()), little);
  EXPECT_THAT(step.parts(), ::testing::MatchesRegex("prompts in [456] parts, images in 4"));
}

/// With class prompts that begin alike.
class DroppedPrompts : public Dropped {
 protected:
  DroppedPrompts() {
    auto rows = random_prompt_rows(short_architecture(), {9, 6, 12, 7, 7, 9});
    for (auto& row : rows) std::copy_n(rows.front().begin(), 5, row.begin());
    setting_.classes = model::make_prompts(rows);
  }

  static engine::TrainingStepOptions shared(bool share_prefix) {
    auto options = step_options(Loss::kCrossEntropy);
    options.share_prefix = share_prefix;
    return options;
  }

  /// The memory from which on a step is one part, to the byte: it tells how many rows there are.
  std::int64_t memory_of_one_part(const lora::Adapter& adapter, engine::TrainingStepOptions options) const {
    std::int64_t too_little = 0, enough = std::int64_t{1} << 30;
    while (enough - too_little > 1) {
      options.memory_bytes = (too_little + enough) / 2;
      const engine::TrainingStep step(setting_.clip, adapter, setting_.classes, options);
      (step.parts().empty() ? enough : too_little) = options.memory_bytes;
    }
    return enough;
  }
};

INSTANTIATE_TEST_SUITE_P(, DroppedPrompts,
                         ::testing::Combine(::testing::Values(DropUnit::kPosition, DropUnit::kSample,
                                                              DropUnit::kModule),
                                            ::testing::Values(0, 3), ::testing::Values(Loss::kCrossEntropy)),
                         [](const auto& test) {
                           return lora::to_string(std::get<0>(test.param)) + "_of_rank_" +
                                  std::to_string(std::get<1>(test.param));
                         });

TEST_P(DroppedPrompts, GiveTheSameWhetherTheirPrefixIsSharedOrNot) {
  const auto adapter = random_adapter(setting_, adapter_options());
  expect_close(gradients_with(setting_, *adapter, shared(true)),
               gradients_with(setting_, *adapter, shared(false)), 1e-5);
}

TEST_P(DroppedPrompts, ShareTheirPrefixUnlessEachDrawsOfItsOwn) {
  const auto adapter = random_adapter(setting_, adapter_options());
  const std::int64_t with_one = memory_of_one_part(*adapter, shared(true));
  const std::int64_t with_many = memory_of_one_part(*adapter, shared(false));
  if (unit() == DropUnit::kSample) {
    EXPECT_EQ(with_one, with_many);
  } else {
    EXPECT_LT(with_one, with_many);
  }
}

}  // namespace
}  // namespace clip_lora::testing
