// Gradients of the methods that are not LoRA alone, and of the contrastive loss: explicit passes against
// autograd, both against differences of the loss.
#include <algorithm>
#include <cmath>
#include <ostream>

#include "clip_lora/model/checkpoint.hpp"
#include "engine_setting.hpp"
#include "support/wrapped_adapter.hpp"

namespace clip_lora::testing {
namespace {

/// The same adapter without a place in the model's blocks.
class ByAutograd final : public WrappedAdapter {
 public:
  using WrappedAdapter::WrappedAdapter;
  bool attach(model::Clip&) const override { return false; }
};

struct Case {
  std::string name;
  lora::AdapterOptions options;

  friend std::ostream& operator<<(std::ostream& stream, const Case& self) { return stream << self.name; }
};

/// Every way of training without drawing anything.
std::vector<Case> cases() {
  std::vector<Case> all = {{"lora", options_of("lora")},
                           {"lora_xs", options_of("lora_xs")},
                           {"r_adapter", options_of("r_adapter")},
                           {"r_adapter_of_rank_3", options_of("r_adapter")},
                           {"r_adapter_of_text_up", options_of("r_adapter")},
                           {"r_adapter_of_vision_half_up", options_of("r_adapter")},
                           {"lora_of_vision", options_of("lora")},
                           {"lora_xs_of_text_top3", options_of("lora_xs")}};
  all[0].options.lora.projections.o = true;
  all[3].options.r_adapter.rank = 3;
  all[4].options.lora.encoder = all[7].options.lora.encoder = lora::Encoder::kText;
  all[4].options.lora.position = lora::Position::kUp;
  all[5].options.lora.encoder = all[6].options.lora.encoder = lora::Encoder::kVision;
  all[5].options.lora.position = lora::Position::kHalfUp;
  all[7].options.lora.position = lora::Position::kTop3;
  return all;
}

class GradientsOfAMethod : public ::testing::TestWithParam<std::tuple<Case, Loss>> {
 protected:
  const lora::AdapterOptions& adapter_options() const { return std::get<0>(GetParam()).options; }
  engine::TrainingStepOptions options() const { return step_options(std::get<1>(GetParam())); }
  Setting setting_;
};

INSTANTIATE_TEST_SUITE_P(, GradientsOfAMethod,
                         ::testing::Combine(::testing::ValuesIn(cases()),
                                            ::testing::Values(Loss::kCrossEntropy, Loss::kContrastive)),
                         [](const auto& test) {
                           return std::get<0>(test.param).name + "_" + name_of(std::get<1>(test.param));
                         });

TEST_P(GradientsOfAMethod, AreTheDifferencesOfTheLoss) {
  expect_the_differences(setting_, *random_adapter(setting_, adapter_options()), options());
}

TEST_P(GradientsOfAMethod, AreAutogradsThroughTheAdaptedWeights) {
  const auto adapter = random_adapter(setting_, adapter_options());
  const ByAutograd by_autograd(*adapter);
  const auto expected = gradients_with(setting_, by_autograd, options());
  expect_close(gradients_with(setting_, *adapter, options()), expected,
               1e-4);  // float32, sums in another order
}

TEST_P(GradientsOfAMethod, AreTheSameInSeveralParts) {
  const auto adapter = random_adapter(setting_, adapter_options());
  auto little = options();
  little.memory_bytes = 1;
  expect_close(gradients_with(setting_, *adapter, little), gradients_with(setting_, *adapter, options()),
               1e-5);
}

TEST_P(GradientsOfAMethod, DoNotAddUpOverIterations) {
  const auto adapter = random_adapter(setting_, adapter_options());
  engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, options().loss), options());
  compute(step, setting_, options().loss);
  const auto first = gradients_of(*adapter);
  compute(step, setting_, options().loss);
  const auto second = gradients_of(*adapter);
  for (std::size_t i = 0; i < first.size(); ++i) EXPECT_TRUE(identical(second[i], first[i])) << i;
}

TEST_P(GradientsOfAMethod, BelongToWhatIsTrainedAloneAndNothingElseMoves) {
  const auto before = snapshot(model::state_dict(setting_.clip));
  const auto adapter = random_adapter(setting_, adapter_options());
  const auto fresh = snapshot(adapter->state_dict());
  {
    engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, options().loss), options());
    for (int i = 0; i < 2; ++i) run(step, setting_, options().loss);
    for (const auto& [name, tensor] : adapter->state_dict()) {
      EXPECT_EQ(tensor.grad().defined(), tensor.requires_grad()) << name;
      EXPECT_EQ(identical(tensor, fresh.at(name)) ? true : false, !tensor.requires_grad()) << name;
    }
  }
  for (const auto& [name, tensor] : model::state_dict(setting_.clip)) {
    EXPECT_FALSE(tensor.requires_grad() || tensor.grad().defined()) << name;
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  }
  for (const auto& parameter : adapter->parameters()) {  // tensors of their own again
    EXPECT_EQ(parameter.storage().nbytes(), parameter.nbytes());
    EXPECT_FALSE(parameter.grad().defined());
  }
}

TEST_P(GradientsOfAMethod, LetABatchBeLearntByHeart) {
  const auto adapter = lora::make_adapter(setting_.clip, adapter_options());
  auto training = options();
  training.optimiser.learning_rate = adapter->method() == "lora_xs" ? 5e-2 : 1e-2;
  training.label_smoothing = 0.0;
  engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, training.loss), training);
  const double first = run(step, setting_, training.loss);
  double last = first;
  for (int i = 1; i < 40; ++i) last = run(step, setting_, training.loss);
  EXPECT_LT(last, 0.8 * first);
}

/// R-Adapter's training as published, but for a rate at which the tiny model moves.
engine::TrainingStepOptions published_training() {
  auto options = step_options(Loss::kContrastive);
  options.optimiser = {.learning_rate = 5e-3,
                       .final_learning_rate = 0.0,
                       .weight_decay = 0.0,
                       .warmup_iterations = 3,
                       .largest_gradient_norm = 1.0,
                       .average_decay = 0.9};
  options.total_iterations = 8;
  return options;
}

lora::AdapterOptions dropping_adapter() {
  auto options = options_of("r_adapter");
  options.r_adapter.drop = 0.2;
  return options;
}

TEST(AveragesOfAStep, AreThoseOfTheWeightsAfterEachUpdate) {
  const Setting setting;
  const auto adapter = lora::make_adapter(setting.clip, dropping_adapter());
  engine::TrainingStep step(setting.clip, *adapter, {}, published_training());
  auto expected = snapshot(adapter->state_dict());
  for (auto& [name, tensor] : expected) tensor = tensor.to(at::kDouble);
  for (int i = 0; i < 8; ++i) {
    run(step, setting, Loss::kContrastive);
    for (const auto& [name, tensor] : adapter->state_dict())
      expected[name] = 0.9 * expected[name] + 0.1 * tensor.detach().to(at::kDouble);
  }
  const auto last = snapshot(adapter->state_dict());
  for (int i = 0; i < 2; ++i) {  // once shown, they are
    step.show_averages(true);
    for (const auto& [name, tensor] : adapter->state_dict())
      EXPECT_TRUE(close_in_norm(tensor, expected.at(name), 1e-6)) << name;
  }
  for (int i = 0; i < 2; ++i) {
    step.show_averages(false);
    for (const auto& [name, tensor] : adapter->state_dict())
      EXPECT_TRUE(identical(tensor, last.at(name))) << name;
  }
}

TEST(AveragesOfAStep, ContinueWithTheRestInAnotherStepBitForBit) {
  const Setting setting;
  const auto iterations = [&](std::int64_t first, std::int64_t end, const io::StateDict* state) {
    torch::manual_seed(state == nullptr ? 5 : 99);  // a resumed adapter's first values do not matter
    const auto adapter = lora::make_adapter(setting.clip, dropping_adapter());
    engine::TrainingStep step(setting.clip, *adapter, {}, published_training());
    if (state != nullptr) step.load_state(*state);
    for (std::int64_t i = first; i < end; ++i) run(step, setting, Loss::kContrastive);
    io::StateDict result = step.state();
    step.show_averages(true);
    for (const auto& [name, tensor] : snapshot(adapter->state_dict())) result[name] = tensor;
    return result;
  };
  const auto whole = iterations(0, 8, nullptr);
  ASSERT_TRUE(whole.contains("averages"));
  for (std::int64_t pause = 0; pause <= 8; pause += 2) {
    auto begun = iterations(0, pause, nullptr);
    std::erase_if(begun, [](const auto& entry) { return entry.first.find('.') != std::string::npos; });
    const auto rest = iterations(pause, 8, &begun);
    ASSERT_EQ(rest.size(), whole.size());
    for (const auto& [name, tensor] : whole)
      EXPECT_TRUE(identical(rest.at(name), tensor)) << name << " after " << pause;
  }
}

TEST(RAdapterInLowPrecision, HasTheGradientsOfFloat32) {
  for (const std::int64_t rank : {0, 3}) {
    for (const auto dtype : {at::kHalf, at::kBFloat16}) {
      Setting setting;
      auto options = dropping_adapter();
      options.r_adapter.rank = rank;
      const auto adapter = random_adapter(setting, options);
      const auto expected = gradients_with(setting, *adapter, step_options(Loss::kContrastive));
      setting.clip->to(dtype);
      auto actual = gradients_with(setting, *adapter, step_options(Loss::kContrastive));
      const double loss_scale = dtype == at::kHalf ? 1024.0 : 1.0;  // the first
      for (auto& gradient : actual.gradients) gradient.div_(loss_scale);
      // Rounded to 11 and 8 bits at every step of the way.
      expect_close(actual, expected, dtype == at::kHalf ? 2e-2 : 1.5e-1);
    }
  }
}

TEST(NothingToTrain, HasALossThatStays) {
  for (const auto loss : {Loss::kCrossEntropy, Loss::kContrastive}) {
    const Setting setting;
    const auto adapter = lora::make_adapter(setting.clip, options_of("zero_shot"));
    engine::TrainingStep step(setting.clip, *adapter, fixed_prompts(setting, loss), step_options(loss));
    const double first = run(step, setting, loss);
    EXPECT_GT(first, 0.0);
    EXPECT_EQ(run(step, setting, loss), first);
  }
}

TEST(ContrastiveStep, TakesABatchOfAnySize) {
  const Setting setting;
  const auto adapter = lora::make_adapter(setting.clip, dropping_adapter());
  engine::TrainingStep step(setting.clip, *adapter, {}, published_training());
  for (const std::int64_t size : {4, 2, 3}) {
    const auto loss = step.run(setting.images.slice(0, 0, size), setting.labels.slice(0, 0, size),
                               setting.texts.slice(0, size));
    EXPECT_TRUE(std::isfinite(loss.item<double>())) << size;
  }
  EXPECT_EQ(step.iteration(), 3);
}

TEST(ContrastiveStep, RefusesTextsThatAreMissingOrTooManyOrTooFew) {
  const Setting setting;
  const auto adapter = lora::make_adapter(setting.clip, dropping_adapter());
  engine::TrainingStep contrastive(setting.clip, *adapter, {}, published_training());
  EXPECT_THROW(contrastive.run(setting.images, setting.labels), c10::Error);
  EXPECT_THROW(contrastive.run(setting.images, setting.labels, setting.classes), c10::Error);
}

}  // namespace
}  // namespace clip_lora::testing
