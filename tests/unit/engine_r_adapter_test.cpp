// Gradients of the methods that are not LoRA alone, and of the contrastive loss: explicit passes against
// autograd, both against differences of the loss, and dropping against its definition.
#include <gmock/gmock.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <ostream>

#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/ops/classification.hpp"
#include "clip_lora/ops/contrastive.hpp"
#include "clip_lora/ops/dropout.hpp"
#include "support/close.hpp"
#include "support/dropping_model.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using engine::Loss;
using lora::DropUnit;

constexpr std::int64_t kSeed = 5;
const std::vector<std::int64_t> kClassEnds = {9, 3, 12, 1, 7, 9};
const std::vector<std::int64_t> kTextEnds = {4, 11, 2, 6};  // one for each image

model::ClipArchitecture short_architecture() {
  auto architecture = tiny_architecture();
  architecture.context_length = 16;
  return architecture;
}

/// A model and a batch, drawn anew for each test.
struct Setting {
  model::Clip clip = random_clip(short_architecture());
  model::Prompts classes = model::make_prompts(random_prompt_rows(short_architecture(), kClassEnds));
  model::Prompts texts = model::make_prompts(random_prompt_rows(short_architecture(), kTextEnds));
  at::Tensor images = random_images(short_architecture(), 4);
  at::Tensor labels = at::tensor({2, 0, 2, 5}, at::kLong);
};

engine::TrainingStepOptions step_options(Loss loss) {
  engine::TrainingStepOptions options;
  options.loss = loss;
  options.logit_scale = 10.0;  // little enough that no softmax is certain
  options.margin = 0.1;
  options.label_smoothing = 0.05;
  options.total_iterations = 40;
  options.dropout_seed = kSeed;
  options.batch_size = 4;
  return options;
}

/// The prompts that a step is made with.
model::Prompts fixed_prompts(const Setting& setting, Loss loss) {
  return loss == Loss::kContrastive ? model::Prompts() : setting.classes;
}

double compute(engine::TrainingStep& step, const Setting& setting, Loss loss) {
  return (loss == Loss::kContrastive ? step.compute_gradients(setting.images, setting.labels, setting.texts)
                                     : step.compute_gradients(setting.images, setting.labels))
      .item<double>();
}

double run(engine::TrainingStep& step, const Setting& setting, Loss loss) {
  return (loss == Loss::kContrastive ? step.run(setting.images, setting.labels, setting.texts)
                                     : step.run(setting.images, setting.labels))
      .item<double>();
}

struct Gradients {
  double loss;
  std::vector<at::Tensor> gradients;  // of parameters()
};

std::vector<at::Tensor> gradients_of(const lora::Adapter& adapter) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : adapter.parameters()) gradients.push_back(parameter.grad().clone());
  return gradients;
}

Gradients gradients_with(const Setting& setting, const lora::Adapter& adapter,
                         const engine::TrainingStepOptions& options) {
  engine::TrainingStep step(setting.clip, adapter, fixed_prompts(setting, options.loss), options);
  const double loss = compute(step, setting, options.loss);
  return {loss, gradients_of(adapter)};
}

/// All gradients of one value, R-Adapter's s, as one vector: each is a sum of which hardly anything may be
/// left.
at::Tensor of_single_values(const Gradients& result) {
  std::vector<at::Tensor> values = {at::zeros({1})};
  for (const auto& gradient : result.gradients) {
    if (gradient.numel() == 1) values.push_back(gradient.to(at::kFloat));
  }
  return at::cat(values);
}

void expect_close(const Gradients& actual, const Gradients& expected, double tolerance) {
  EXPECT_NEAR(actual.loss, expected.loss, tolerance * expected.loss);
  ASSERT_EQ(actual.gradients.size(), expected.gradients.size());
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    if (expected.gradients[i].numel() == 1) continue;
    EXPECT_TRUE(close_in_norm(actual.gradients[i], expected.gradients[i], tolerance)) << "parameter " << i;
  }
  EXPECT_TRUE(close_in_norm(of_single_values(actual), of_single_values(expected), tolerance)) << "scales";
}

/// The same adapter without a place in the model's blocks.
class ByAutograd final : public lora::Adapter {
 public:
  explicit ByAutograd(const lora::Adapter& adapter) : adapter_(adapter) {}

  const std::string& method() const override { return adapter_.method(); }
  const std::vector<lora::Place>& places() const override { return adapter_.places(); }
  std::vector<torch::Tensor> parameters() const override { return adapter_.parameters(); }
  io::StateDict state_dict() const override { return adapter_.state_dict(); }
  model::BlockWeights adapted(std::size_t place, const model::BlockWeights& frozen,
                              double scale) const override {
    return adapter_.adapted(place, frozen, scale);
  }
  bool attach(model::Clip&) const override { return false; }
  lora::AdapterOptions options() const override { return adapter_.options(); }
  std::map<std::string, std::string> settings() const override { return adapter_.settings(); }
  void set_training_options(const lora::AdapterOptions&) override {}

 private:
  const lora::Adapter& adapter_;
};

struct Case {
  std::string name;
  lora::AdapterOptions options;

  friend std::ostream& operator<<(std::ostream& stream, const Case& self) { return stream << self.name; }
};

lora::AdapterOptions options_of(const std::string& method) {
  lora::AdapterOptions options;
  options.method = method;
  options.lora.dropout = options.r_adapter.drop = 0.0;
  if (method == "lora_xs") options.lora.rank = 16;  // two singular directions could do little
  return options;
}

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

std::string name_of(Loss loss) { return loss == Loss::kContrastive ? "contrastive" : "cross_entropy"; }

std::shared_ptr<lora::Adapter> random_adapter(const Setting& setting, const lora::AdapterOptions& options) {
  const auto adapter = lora::make_adapter(setting.clip, options);
  randomise(*adapter);
  return adapter;
}

/// Whether the gradients agree with differences of the loss in some directions.
void expect_the_differences(const Setting& setting, const lora::Adapter& adapter,
                            const engine::TrainingStepOptions& options) {
  const at::NoGradGuard no_grad;
  engine::TrainingStep step(setting.clip, adapter, fixed_prompts(setting, options.loss), options);
  const io::StateDict start = step.state();  // of the dropping too
  compute(step, setting, options.loss);
  const auto gradients = gradients_of(adapter);
  const auto parameters = adapter.parameters();
  for (int attempt = 0; attempt < 3; ++attempt) {
    // Near the gradient's own: in most others hardly anything changes. Every tensor has an equal part.
    std::vector<at::Tensor> direction;
    double expected = 0.0;
    for (const auto& gradient : gradients) {
      const double norm = gradient.norm().item<double>();  // 0 behind what is dropped
      direction.push_back(gradient * at::rand_like(gradient) * (norm > 0.0 ? 2.0 / norm : 0.0));
      expected += (direction.back() * gradient).sum().item<double>();
    }
    const double step_size = 1e-2 / expected;  // the loss changes by that, its rounding is a ten-thousandth
    const auto loss_at = [&](double distance) {
      step.load_state(start);
      for (std::size_t i = 0; i < parameters.size(); ++i)
        at::Tensor(parameters[i]).add_(direction[i], distance);
      return compute(step, setting, options.loss);
    };
    const double difference = (loss_at(step_size) - loss_at(-step_size)) / (2.0 * step_size);
    EXPECT_NEAR(difference, expected, 5e-3 * expected);
  }
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

  /// The factors that the first pass of a step draws: a stream of its own for each module.
  Dropping drawn() const {
    return [rate = adapter_options().r_adapter.drop, unit = unit()](const Module& module, std::int64_t batch,
                                                                    std::int64_t length) {
      const std::int64_t stream =
          2 * (2 * module.block + (module.tower == lora::Tower::kVision ? 1 : 0)) + (module.is_mlp ? 1 : 0);
      const ops::Dropout draws = {
          .rate = rate, .state = at::tensor({kSeed, std::int64_t{0}}), .stream = stream};
      const std::int64_t count = unit == DropUnit::kPosition ? length : unit == DropUnit::kSample ? batch : 1;
      const at::Tensor factors = ops::dropout_masks(draws, 1, count, 1).flatten() / draws.keep();
      return unit == DropUnit::kSample ? factors.unsqueeze(1) : factors;
    };
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

TEST_P(Dropped, LossAndGradientsAreAutogradsOfTheDefinition) {
  const auto adapter = random_adapter(setting_, adapter_options());
  const auto actual = gradients_with(setting_, *adapter, step_options(loss()));
  adapter->attach(setting_.clip);
  const auto images = dropping_image_features(setting_.clip, setting_.images, drawn());
  const auto texts = dropping_text_features(
      setting_.clip, loss() == Loss::kContrastive ? setting_.texts : setting_.classes, drawn());
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
    const auto cosines = at::matmul(images / images.norm(2, -1, true), (texts / texts.norm(2, -1, true)).t());
    const auto loss = at::cross_entropy_loss(options.logit_scale * cosines, setting_.labels);
    expected.loss = loss.item<double>();
    loss.backward();
  }
  expected.gradients = gradients_of(*adapter);
  expect_close(actual, expected, 1e-4);  // float32, sums in another order
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

TEST_P(Dropped, SharingAPrefixChangesNothing) {
  auto rows = random_prompt_rows(short_architecture(), {9, 6, 12, 7, 7, 9});
  for (auto& row : rows) std::copy_n(rows.front().begin(), 5, row.begin());
  setting_.classes = model::make_prompts(rows);
  const auto adapter = random_adapter(setting_, adapter_options());
  auto options = step_options(Loss::kCrossEntropy);
  const auto shared = gradients_with(setting_, *adapter, options);
  options.share_prefix = false;
  expect_close(shared, gradients_with(setting_, *adapter, options), 1e-5);
}

TEST_P(Dropped, EachPassDrawsAnew) {
  const auto adapter = random_adapter(setting_, adapter_options());
  engine::TrainingStep step(setting_.clip, *adapter, fixed_prompts(setting_, loss()), step_options(loss()));
  EXPECT_NE(compute(step, setting_, loss()), compute(step, setting_, loss()));
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
