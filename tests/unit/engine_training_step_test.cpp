#include <gmock/gmock.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "clip_lora/engine/encoders.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "support/close.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

// float32 through four blocks and back. The softmax of 100 · cosine magnifies the features' rounding, the
// more the nearer it is to certainty: a correct implementation reaches 7e-5, a missing term is a thousand
// times that.
constexpr double kTolerance = 2e-4;

const std::vector<std::int64_t> kEnds = {9, 3, 12, 1, 7, 9};

/// A context that just holds the prompts: the oracle computes all of it.
model::ClipArchitecture oracle_architecture() {
  auto architecture = tiny_architecture();
  architecture.context_length = 16;
  return architecture;
}

/// A model, prompts and a batch, drawn anew for each test.
struct OracleSetting {
  model::Clip clip = random_clip(oracle_architecture());
  std::vector<std::vector<std::int64_t>> rows = random_prompt_rows(oracle_architecture(), kEnds);
  at::Tensor images = random_images(oracle_architecture(), 4);
  at::Tensor labels = at::randint(0, static_cast<std::int64_t>(kEnds.size()), {4}, at::kLong);

  model::Prompts prompts() const { return model::make_prompts(rows); }
};

void expect_the_oracles_gradients(const lora::LoraOptions& options, const OracleLoss& loss_options = {}) {
  OracleSetting setting;
  const auto classes = static_cast<std::int64_t>(kEnds.size()) / loss_options.prompts_per_class;
  setting.labels = at::randint(0, classes, {4}, at::kLong);
  const lora::LoraAdapter adapter(setting.clip, options);
  randomise(adapter);
  const auto expected = oracle_gradients(oracle_of(setting.clip, adapter), setting.images,
                                         as_tensor(setting.rows), setting.labels, loss_options);
  engine::TrainingStepOptions step_options;
  step_options.prompts_per_class = loss_options.prompts_per_class;
  if (!loss_options.class_weights.empty()) {
    step_options.class_weights = torch::tensor(loss_options.class_weights, at::kFloat);
  }
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), step_options);
  const auto loss = step.compute_gradients(setting.images, setting.labels);
  EXPECT_NEAR(loss.item<double>(), expected.loss, kTolerance * expected.loss);
  for (const auto& [name, tensor] : adapter.state_dict()) {
    EXPECT_TRUE(close(tensor.grad(), expected.gradients.at(name), kTolerance)) << name;
  }
}

lora::LoraOptions with_rank(std::int64_t rank) {
  auto options = without_dropout();
  options.rank = rank;
  return options;
}

class GradientsByPlace : public ::testing::TestWithParam<std::tuple<std::string, std::string>> {};

TEST_P(GradientsByPlace, EqualTheOracles) {
  auto options = without_dropout();
  options.encoder = lora::parse_encoder(std::get<0>(GetParam()));
  options.position = lora::parse_position(std::get<1>(GetParam()));
  expect_the_oracles_gradients(options);
}

INSTANTIATE_TEST_SUITE_P(, GradientsByPlace,
                         ::testing::Combine(::testing::Values("both", "text", "vision"),
                                            ::testing::Values("all", "bottom", "mid", "up", "half-up",
                                                              "half-bottom", "top3")),
                         [](const auto& test) {
                           auto name = std::get<0>(test.param) + "_" + std::get<1>(test.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

class GradientsByProjections : public ::testing::TestWithParam<int> {};  // bits: q, k, v, o

lora::Projections projections_of(int bits) {
  return {.q = (bits & 1) != 0, .k = (bits & 2) != 0, .v = (bits & 4) != 0, .o = (bits & 8) != 0};
}

TEST_P(GradientsByProjections, EqualTheOracles) {
  auto options = without_dropout();
  options.projections = projections_of(GetParam());
  expect_the_oracles_gradients(options);
}

INSTANTIATE_TEST_SUITE_P(, GradientsByProjections, ::testing::Range(1, 16), [](const auto& test) {
  std::string name;
  for (const auto& projection : lora::projection_names(projections_of(test.param))) name += projection;
  return name;
});

class GradientsByRank : public ::testing::TestWithParam<std::int64_t> {};

TEST_P(GradientsByRank, EqualTheOracles) { expect_the_oracles_gradients(with_rank(GetParam())); }

INSTANTIATE_TEST_SUITE_P(, GradientsByRank, ::testing::Values(1, 2, 3, 8, 32, 128),
                         ::testing::PrintToStringParamName());

class GradientsOfSeveralPrompts : public ::testing::TestWithParam<std::tuple<std::string, std::int64_t>> {};

TEST_P(GradientsOfSeveralPrompts, EqualTheOracles) {
  auto options = without_dropout();
  options.encoder = lora::parse_encoder(std::get<0>(GetParam()));
  expect_the_oracles_gradients(options, {.prompts_per_class = std::get<1>(GetParam())});
}

INSTANTIATE_TEST_SUITE_P(, GradientsOfSeveralPrompts,
                         ::testing::Combine(::testing::Values("both", "text", "vision"),
                                            ::testing::Values(2, 3)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" + std::to_string(std::get<1>(test.param));
                         });

TEST(TrainingStep, WeighsClassesAsTheOracleDoes) {
  expect_the_oracles_gradients(without_dropout(),
                               {.prompts_per_class = 1, .class_weights = {0.2, 3.0, 1.0, 0.5, 2.0, 0.7}});
  expect_the_oracles_gradients(without_dropout(), {.prompts_per_class = 2, .class_weights = {0.2, 3.0, 1.0}});
}

TEST(TrainingStep, ClassesOfWeightZeroDoNotCount) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, without_dropout());
  randomise(adapter);
  const auto labels = torch::tensor({0, 2, 0, 1}, at::kLong);
  const auto loss_of = [&](const at::Tensor& images, const at::Tensor& of, const at::Tensor& weights) {
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.class_weights = weights});
    return step.compute_gradients(images, of).item<double>();
  };
  const double weighted =
      loss_of(setting.images, labels, torch::tensor({1.0, 1.0, 0.0, 1.0, 1.0, 1.0}, at::kFloat));
  const auto others = torch::tensor({0, 2, 3});
  const double without = loss_of(setting.images.index({others}), labels.index({others}), {});
  // Sums of four and of three float32 numbers, out of batches of four and three.
  EXPECT_NEAR(weighted, without, 1e-4 * without);
}

TEST(TrainingStep, RefusesPromptsThatDoNotDivideIntoClassesAndWeightsOfOtherClasses) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, {});
  const auto make = [&](const engine::TrainingStepOptions& options) {
    const engine::TrainingStep step(setting.clip, adapter, setting.prompts(), options);
  };
  EXPECT_THROW(make({.prompts_per_class = 4}), c10::Error);
  EXPECT_THROW(make({.class_weights = at::ones({5})}), c10::Error);
}

TEST(TrainingStep, TwentyUpdatesFollowTheOracles) {
  const OracleSetting setting;
  const auto images = at::stack([&] {
    std::vector<at::Tensor> batches;
    for (int i = 0; i < 20; ++i) batches.push_back(random_images(tiny_architecture(), 4));
    return batches;
  }());
  const auto labels = at::randint(0, static_cast<std::int64_t>(kEnds.size()), {20, 4}, at::kLong);
  auto options = without_dropout();
  options.projections.o = true;
  const lora::LoraAdapter adapter(setting.clip, options);
  const auto expected =
      oracle_trajectory(oracle_of(setting.clip, adapter), images, as_tensor(setting.rows), labels, {});

  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.total_iterations = 20});
  for (std::int64_t t = 0; t < 20; ++t) {
    const auto index = static_cast<std::size_t>(t);
    EXPECT_EQ(step.iteration(), t);
    EXPECT_NEAR(step.learning_rate(), expected.learning_rates[index], 1e-15);
    const double loss = step.run(images[t], labels[t]).item<double>();
    EXPECT_NEAR(loss, expected.losses[index], 1e-4 * expected.losses[index]) << "iteration " << t;
  }
  // By the norm, since Adam divides by the gradient's own size: single entries with hardly any gradient move
  // by rounding's whim.
  for (const auto& [name, tensor] : expected.lora)
    EXPECT_TRUE(close_in_norm(adapter.state_dict().at(name), tensor, 1e-3)) << name;
}

TEST(TrainingStep, OnlyAAndBGetGradientsAndOnlyTheyMove) {
  const OracleSetting setting;
  const auto before = snapshot(model::state_dict(setting.clip));
  const lora::LoraAdapter adapter(setting.clip, {});
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.total_iterations = 3});
  for (int i = 0; i < 3; ++i) step.run(setting.images, setting.labels);
  for (const auto& [name, tensor] : model::state_dict(setting.clip)) {
    EXPECT_FALSE(tensor.grad().defined()) << name;
    EXPECT_FALSE(tensor.requires_grad()) << name;
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  }
  for (const auto& [name, tensor] : adapter.state_dict()) {
    EXPECT_TRUE(tensor.grad().defined()) << name;
    if (name.ends_with("_B")) {
      EXPECT_GT(tensor.abs().max().item<double>(), 0.0) << name;
    }
  }
}

TEST(TrainingStep, GradientsDoNotAddUpOverIterations) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, without_dropout());
  randomise(adapter);
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {});
  step.compute_gradients(setting.images, setting.labels);
  io::StateDict first;
  for (const auto& [name, tensor] : adapter.state_dict()) first[name] = tensor.grad().clone();
  step.compute_gradients(setting.images, setting.labels);
  for (const auto& [name, tensor] : adapter.state_dict())
    EXPECT_TRUE(close(tensor.grad(), first.at(name), 1e-5)) << name;
}

TEST(TrainingStep, LearnsABatchByHeart) {
  const OracleSetting setting;
  engine::OptimiserOptions options;
  options.learning_rate = 1e-2;
  const lora::LoraAdapter adapter(setting.clip, without_dropout());
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(),
                            {.optimiser = options, .total_iterations = 40});
  const double first = step.run(setting.images, setting.labels).item<double>();
  double last = first;
  for (int i = 1; i < 40; ++i) last = step.run(setting.images, setting.labels).item<double>();
  EXPECT_LT(last, 0.5 * first);
}

TEST(TrainingStep, DrawsDropoutAnewEachTime) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, {});
  randomise(adapter);
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {});
  const double first = step.compute_gradients(setting.images, setting.labels).item<double>();
  const double second = step.compute_gradients(setting.images, setting.labels).item<double>();
  EXPECT_NE(first, second);
}

TEST(TrainingStep, LeavesTheModelAsItWas) {
  const OracleSetting setting;
  const auto before = snapshot(model::state_dict(setting.clip));
  {
    const lora::LoraAdapter adapter(setting.clip, {});
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {});
    step.run(setting.images, setting.labels);
    EXPECT_TRUE(setting.clip->is_training());
  }
  EXPECT_FALSE(setting.clip->is_training());
  for (const auto& [name, tensor] : model::state_dict(setting.clip)) {
    EXPECT_TRUE(identical(tensor, before.at(name))) << name;
  }
}

TEST(TrainingStep, GivesTheAdapterItsOwnTensorsBack) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, {});
  io::StateDict last;
  {
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {});
    step.run(setting.images, setting.labels);
    last = snapshot(adapter.state_dict());
  }
  for (const auto& [name, tensor] : adapter.state_dict()) {
    EXPECT_TRUE(identical(tensor, last.at(name))) << name;
    EXPECT_EQ(tensor.storage().nbytes(), tensor.nbytes()) << name;
    EXPECT_TRUE(tensor.requires_grad()) << name;
  }
}

/// Gradients and loss of one pass without dropout.
std::pair<double, io::StateDict> gradients_with(const OracleSetting& setting,
                                                const lora::LoraAdapter& adapter,
                                                const engine::TrainingStepOptions& options) {
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), options);
  const double loss = step.compute_gradients(setting.images, setting.labels).item<double>();
  io::StateDict gradients;
  for (const auto& [name, tensor] : adapter.state_dict()) gradients[name] = tensor.grad().clone();
  return {loss, gradients};
}

TEST(TrainingStep, SharingThePromptsPrefixChangesNothing) {
  OracleSetting setting;
  setting.rows = random_prompt_rows(oracle_architecture(), {9, 6, 12, 7, 7, 9});
  for (auto& row : setting.rows) std::copy_n(setting.rows.front().begin(), 5, row.begin());
  const lora::LoraAdapter adapter(setting.clip, without_dropout());
  randomise(adapter);
  const auto [shared_loss, shared] = gradients_with(setting, adapter, {.share_prefix = true});
  const auto [loss, unshared] = gradients_with(setting, adapter, {.share_prefix = false});
  EXPECT_NEAR(shared_loss, loss, 1e-5 * loss);
  for (const auto& [name, gradient] : unshared) {
    EXPECT_TRUE(close_in_norm(shared.at(name), gradient, 1e-5)) << name;  // sums in another order
  }
}

TEST(TrainingStep, LittleMemoryChangesNothingButTheTime) {
  const OracleSetting setting;
  auto options = lora::LoraOptions{};  // with dropout: the parts draw the same masks
  options.projections.o = true;
  const lora::LoraAdapter adapter(setting.clip, options);
  randomise(adapter);
  const auto [whole_loss, whole] = gradients_with(setting, adapter, {.batch_size = 4});
  const auto [loss, in_parts] = gradients_with(setting, adapter, {.batch_size = 4, .memory_bytes = 1});
  EXPECT_NEAR(whole_loss, loss, 1e-5 * loss);
  for (const auto& [name, gradient] : whole) {
    EXPECT_TRUE(close_in_norm(in_parts.at(name), gradient, 1e-5)) << name;
  }
  const engine::TrainingStep step(setting.clip, adapter, setting.prompts(),
                                  {.batch_size = 4, .memory_bytes = 1});
  EXPECT_EQ(step.parts(), "prompts in 5 parts, images in 4");
}

TEST(TrainingStep, TheSameSeedGivesTheSameAdapterBitForBit) {
  const OracleSetting setting;
  const auto trained = [&](std::int64_t seed) {
    at::manual_seed(3);
    const lora::LoraAdapter adapter(setting.clip, {});
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(),
                              {.total_iterations = 4, .dropout_seed = seed});
    for (int i = 0; i < 4; ++i) step.run(setting.images, setting.labels);
    return snapshot(adapter.state_dict());
  };
  const auto first = trained(1), again = trained(1), other = trained(2);
  for (const auto& [name, tensor] : first) {
    EXPECT_TRUE(identical(tensor, again.at(name))) << name;
    EXPECT_FALSE(identical(tensor, other.at(name))) << name;
  }
}

TEST(TrainingStep, TakesABatchOfAnySize) {
  const OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, {});
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.total_iterations = 3});
  for (const std::int64_t size : {4, 1, 3}) {
    const auto loss = step.run(setting.images.slice(0, 0, size), setting.labels.slice(0, 0, size));
    EXPECT_EQ(loss.dim(), 0);
    EXPECT_EQ(loss.scalar_type(), at::kFloat);
    EXPECT_FALSE(loss.requires_grad());
  }
  EXPECT_EQ(step.iteration(), 3);
}

TEST(CosineLearningRate, GoesFromTheFirstRateToTheLastOnHalfACosine) {
  const engine::OptimiserOptions options;
  EXPECT_DOUBLE_EQ(engine::learning_rate_at(options, 0, 100), 2e-4);
  EXPECT_DOUBLE_EQ(engine::learning_rate_at(options, 50, 100), (2e-4 + 1e-6) / 2);
  EXPECT_DOUBLE_EQ(engine::learning_rate_at(options, 100, 100), 1e-6);
  EXPECT_NEAR(engine::learning_rate_at(options, 25, 100), 1e-6 + (2e-4 - 1e-6) * (0.5 + std::sqrt(0.125)),
              1e-12);
  for (int i = 1; i <= 100; ++i) {
    EXPECT_LT(engine::learning_rate_at(options, i, 100), engine::learning_rate_at(options, i - 1, 100));
  }
}

TEST(ClassificationLogits, AreAHundredTimesTheProducts) {
  const auto f = at::randn({3, 8}), t = at::randn({5, 8});
  EXPECT_TRUE(close(engine::classification_logits(f, t), 100.0 * f.matmul(t.t()), 1e-6));
}

/// Losses and adapter of iterations with dropout, whose batches are of four and of three images.
struct Iterations {
  std::vector<double> losses;
  io::StateDict adapter;
  io::StateDict state;
};

Iterations iterations(OracleSetting& setting, const std::string& encoder, std::int64_t first,
                      std::int64_t end, const io::StateDict* state) {
  torch::manual_seed(state == nullptr ? 5 : 99);  // a resumed adapter's first values do not matter
  lora::LoraOptions options;
  options.encoder = lora::parse_encoder(encoder);
  const lora::LoraAdapter adapter(setting.clip, options);
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(),
                            {.total_iterations = 8, .dropout_seed = 3});
  if (state != nullptr) step.load_state(*state);
  EXPECT_EQ(step.iteration(), first);
  Iterations result;
  for (std::int64_t i = first; i < end; ++i) {
    const std::int64_t count = i % 3 == 2 ? 3 : 4;
    result.losses.push_back(
        step.run(setting.images.narrow(0, 0, count), setting.labels.narrow(0, 0, count)).item<double>());
  }
  result.adapter = snapshot(adapter.state_dict());
  result.state = step.state();
  return result;
}

class StateOfAStep : public ::testing::TestWithParam<std::string> {};

TEST_P(StateOfAStep, ContinuesInAnotherStepBitForBit) {
  OracleSetting setting;
  const Iterations whole = iterations(setting, GetParam(), 0, 8, nullptr);
  for (std::int64_t pause = 0; pause <= 8; ++pause) {
    const Iterations begun = iterations(setting, GetParam(), 0, pause, nullptr);
    const Iterations rest = iterations(setting, GetParam(), pause, 8, &begun.state);
    EXPECT_TRUE(std::equal(rest.losses.begin(), rest.losses.end(), whole.losses.begin() + pause));
    for (const auto& [name, tensor] : whole.adapter)
      EXPECT_TRUE(identical(rest.adapter.at(name), tensor)) << name << " after " << pause;
    for (const auto& [name, tensor] : whole.state)
      EXPECT_TRUE(identical(rest.state.at(name), tensor)) << name << " after " << pause;
  }
}

INSTANTIATE_TEST_SUITE_P(, StateOfAStep, ::testing::Values("both", "text", "vision"));

TEST(MeasurementsOfAStep, AreTheLossAndTheNormOfItsGradients) {
  OracleSetting setting;
  const lora::LoraAdapter adapter(setting.clip, {});
  randomise(adapter);
  engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.total_iterations = 2});
  for (int i = 0; i < 2; ++i) {
    const double loss = step.run(setting.images, setting.labels).item<double>();
    const engine::Measurements measured = step.measure()();
    double squares = 0.0;
    for (const auto& [name, tensor] : adapter.state_dict())
      squares += tensor.grad().to(at::kDouble).square().sum().item<double>();
    EXPECT_EQ(measured.loss, loss);
    EXPECT_NEAR(measured.gradient_norm, std::sqrt(squares), 1e-5 * std::sqrt(squares));  // summed in float32
    EXPECT_EQ(measured.loss_scale, 1.0);
  }
}

TEST(AStepOfGradientsThatAreNotFinite, ChangesNoBitAndIsCounted) {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    OracleSetting setting;
    setting.clip->to(at::Device(at::kCPU), type);
    const lora::LoraAdapter adapter(setting.clip, without_dropout());
    randomise(adapter);
    engine::TrainingStepOptions options;
    options.total_iterations = 4;
    options.optimiser.average_decay = 0.5;
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(), options);
    step.run(setting.images, setting.labels);
    EXPECT_EQ(step.measure()().skipped, 0);
    const io::StateDict before = step.state();
    at::Tensor broken = setting.images.clone();
    broken[1][0][3][3] = std::nan("");
    EXPECT_TRUE(std::isnan(step.run(broken, setting.labels).item<double>()));
    EXPECT_EQ(step.measure()().skipped, 1);
    EXPECT_FALSE(step.measure()().scales_loss);
    const io::StateDict after = step.state();
    for (const char* name : {"parameters", "first_moments", "second_moments", "averages"})
      EXPECT_TRUE(identical(after.at(name), before.at(name))) << name;
    EXPECT_TRUE(std::isfinite(step.run(setting.images, setting.labels).item<double>()));
    EXPECT_EQ(step.measure()().skipped, 1);
    EXPECT_EQ(step.loss_scale(), 1.0);
  }
}

TEST(StateOfAnOlderStep, WithoutALossScaleIsGoneOnFrom) {
  OracleSetting setting;
  const auto ends_as = [&](bool older) {
    torch::manual_seed(3);
    const lora::LoraAdapter adapter(setting.clip, {});
    engine::TrainingStep step(setting.clip, adapter, setting.prompts(), {.total_iterations = 4});
    step.run(setting.images, setting.labels);
    io::StateDict state = step.state();
    if (older) state.at("counters")[2] = 0.0;
    step.load_state(state);
    step.run(setting.images, setting.labels);
    return step.state().at("parameters");
  };
  EXPECT_TRUE(identical(ends_as(true), ends_as(false)));
}

}  // namespace
}  // namespace clip_lora::testing
