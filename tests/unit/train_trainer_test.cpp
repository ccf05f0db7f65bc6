#include <cmath>
#include <csignal>
#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "support/throws.hpp"
#include "train_trainer_setting.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

TEST_F(TrainerTest, RunsItsIterationsAndReportsEach) {
  const lora::LoraAdapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 7});
  auto loader = training_loader();
  std::vector<std::int64_t> images;
  double last_loss = 0.0;
  const auto check = [&](const train::Progress& progress) {
    images.push_back(progress.images);
    EXPECT_EQ(progress.iteration, static_cast<std::int64_t>(images.size()));
    EXPECT_EQ(progress.total, 7);
    EXPECT_EQ(progress.learning_rate, step.learning_rate());
    last_loss = progress.loss();
    EXPECT_GT(last_loss, 0.0);
  };
  const auto result =
      train::train(step, adapter, train::batches_of(loader), clip_, {.iterations = 7, .on_progress = check});
  // Eleven pictures in batches of four: the last of an epoch has three and counts as an iteration.
  EXPECT_EQ(images, (std::vector<std::int64_t>{4, 8, 11, 15, 19, 22, 26}));
  EXPECT_EQ(step.iteration(), 7);
  EXPECT_TRUE(result.validation.empty());
  EXPECT_EQ(result.selected_iteration, 7);
  EXPECT_EQ(result.images, 26);
  EXPECT_EQ(result.loss, last_loss);
}

TEST_F(TrainerTest, LooksEveryFewIterationsAndAfterTheLast) {
  const lora::LoraAdapter adapter(clip_, {});
  const train::Validation validation = {.every = 3, .accuracy = [] { return 12.5; }};
  const auto uneven = train(adapter, 7, validation);
  EXPECT_EQ(iterations_of(uneven), (std::vector<std::int64_t>{3, 6, 7}));
  EXPECT_EQ(uneven.validation[1].accuracy, 12.5);
  EXPECT_EQ(uneven.selected_iteration, 7);
  EXPECT_EQ(iterations_of(train(adapter, 6, validation)), (std::vector<std::int64_t>{3, 6}));
  EXPECT_EQ(iterations_of(train(adapter, 2, validation)), (std::vector<std::int64_t>{2}));
}

TEST_F(TrainerTest, LooksChangeNothingOfTheTraining) {
  const auto trained = [&](const train::Validation& validation) {
    torch::manual_seed(5);
    const lora::LoraAdapter adapter(clip_, {});
    train(adapter, 7, validation);
    return snapshot(adapter.state_dict());
  };
  const auto without = trained({});
  expect_identical(trained({.every = 2, .accuracy = [this] { return accuracy(); }}), without);
}

TEST_F(TrainerTest, AtALookTheModelEvaluatesWithTheAdapterMerged) {
  const at::Tensor images = random_images(architecture(), 2);
  const auto weights = snapshot(model::state_dict(clip_));
  const lora::LoraAdapter adapter(clip_, {});
  randomise(adapter);
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 2});
  auto loader = training_loader();
  int looks = 0;
  const auto look = [&] {
    const at::NoGradGuard no_grad;
    EXPECT_FALSE(clip_->is_training());
    const OracleModel oracle = {weights, snapshot(adapter.state_dict()), adapter.lora_options().scaling()};
    EXPECT_TRUE(
        close(clip_->encode_image(images).to(at::kDouble), oracle_image_features(oracle, images), 2e-5));
    EXPECT_FALSE(identical(model::state_dict(clip_).at("visual.transformer.resblocks.0.attn.in_proj_weight"),
                           weights.at("visual.transformer.resblocks.0.attn.in_proj_weight")));
    ++looks;
    return 0.0;
  };
  const auto check = [&](const train::Progress&) {
    EXPECT_TRUE(clip_->is_training());
    expect_identical(model::state_dict(clip_), weights);
  };
  train::train(step, adapter, train::batches_of(loader), clip_,
               {.iterations = 2, .validation = {.every = 1, .accuracy = look}, .on_progress = check});
  EXPECT_EQ(looks, 2);
  EXPECT_TRUE(clip_->is_training());
  expect_identical(model::state_dict(clip_), weights);
}

TEST_F(TrainerTest, SelectBestEndsWithTheEarliestOfTheBestAdapters) {
  const lora::LoraAdapter adapter(clip_, {});
  const auto result = train(adapter, 7, scripted(adapter, {10.0, 30.0, 30.0, 20.0}, train::Select::kBest));
  EXPECT_EQ(iterations_of(result), (std::vector<std::int64_t>{2, 4, 6, 7}));
  EXPECT_EQ(result.selected_iteration, 4);
  expect_identical(adapter.state_dict(), seen_.at(1));
}

TEST_F(TrainerTest, SelectBestMayBeTheLastAndAnAccuracyOfZero) {
  const lora::LoraAdapter adapter(clip_, {});
  EXPECT_EQ(train(adapter, 4, scripted(adapter, {10.0, 30.0}, train::Select::kBest)).selected_iteration, 4);
  expect_identical(adapter.state_dict(), seen_.at(1));
  seen_.clear();
  EXPECT_EQ(train(adapter, 4, scripted(adapter, {0.0, 0.0}, train::Select::kBest)).selected_iteration, 2);
  expect_identical(adapter.state_dict(), seen_.at(0));
}

TEST_F(TrainerTest, SelectLastKeepsTheLastAdapterHoweverGoodAnotherWas) {
  const lora::LoraAdapter adapter(clip_, {});
  const auto result = train(adapter, 5, scripted(adapter, {90.0, 10.0, 10.0}, train::Select::kLast));
  EXPECT_EQ(result.selected_iteration, 5);
  expect_identical(adapter.state_dict(), seen_.at(2));
}

TEST_F(TrainerTest, ALookThatFailsLeavesTheModelAsItWas) {
  const auto weights = snapshot(model::state_dict(clip_));
  const lora::LoraAdapter adapter(clip_, {});
  const auto fail = []() -> double { throw DataError("broken picture"); };
  EXPECT_EQ(message_of<DataError>([&] { train(adapter, 3, {.every = 2, .accuracy = fail}); }),
            "broken picture");
  EXPECT_FALSE(clip_->is_training());
  expect_identical(model::state_dict(clip_), weights);
}

TEST_F(TrainerTest, BalancedWeightsAreTheShareOfAClassTurnedRound) {
  const std::vector<data::Item> items = {{"a", 0}, {"b", 0}, {"c", 3}, {"d", 1}, {"e", 0}};
  const auto weights = train::balanced_class_weights(items, 4);
  EXPECT_TRUE(identical(weights, torch::tensor({5.0 / 12.0, 5.0 / 4.0, 0.0, 5.0 / 4.0}, at::kFloat)));
}

TEST_F(TrainerTest, MeasuresEveryFewIterationsAndTheLast) {
  const lora::LoraAdapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 7});
  auto loader = training_loader();
  std::vector<train::Measurement> measurements;
  std::vector<double> losses, norms;
  const auto note = [&](const train::Progress& progress) {
    losses.push_back(progress.loss());
    double squares = 0.0;
    for (const auto& [name, tensor] : adapter.state_dict()) {
      squares += tensor.grad().to(at::kDouble).square().sum().item<double>();
    }
    norms.push_back(std::sqrt(squares));
  };
  const auto record = [&](const train::Measurement& measurement) { measurements.push_back(measurement); };
  train::train(
      step, adapter, train::batches_of(loader), clip_,
      {.iterations = 7, .measuring = {.every = 3, .images = 11, .record = record}, .on_progress = note});
  ASSERT_EQ(measurements.size(), 3U);
  const std::vector<std::int64_t> iterations = {3, 6, 7};
  const std::vector<double> epochs = {1.0, 2.0, 26.0 / 11.0};  // of 4, 4, 3, 4, 4, 3 and 4 pictures
  for (std::size_t i = 0; i < 3; ++i) {
    const auto index = static_cast<std::size_t>(iterations[i] - 1);
    EXPECT_EQ(measurements[i].iteration, iterations[i]);
    EXPECT_EQ(measurements[i].epoch, epochs[i]);
    EXPECT_EQ(measurements[i].loss, losses[index]);
    EXPECT_NEAR(measurements[i].gradient_norm, norms[index], 1e-5 * norms[index]);  // summed in float32
    EXPECT_EQ(measurements[i].learning_rate, engine::learning_rate_at({}, iterations[i] - 1, 7));
    EXPECT_EQ(measurements[i].loss_scale, 1.0);
    EXPECT_GT(measurements[i].images_per_second, 0.0);
  }
}

TEST_F(TrainerTest, ASignalStopsTrainingBetweenTwoIterationsWithACheckpoint) {
  const lora::LoraAdapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 50});
  auto loader = training_loader();
  catch_interrupts();  // last test of this program: the signal stays pending
  std::vector<std::int64_t> saved, measured;
  train::TrainingPlan plan;
  plan.iterations = 50;
  plan.checkpoints = {.every = 100,
                      .save = [&](const train::TrainingState& state) { saved.push_back(state.iteration); }};
  plan.measuring = {.every = 2, .images = 11, .record = [&](const train::Measurement& measurement) {
                      measured.push_back(measurement.iteration);
                    }};
  plan.on_progress = [](const train::Progress& progress) {
    if (progress.iteration == 3) std::raise(SIGHUP);
  };
  const auto run = [&] { train::train(step, adapter, train::batches_of(loader), clip_, plan); };
  EXPECT_THAT(message_of<Interrupted>(run), HasSubstr("3"));
  EXPECT_EQ(step.iteration(), 3);
  EXPECT_EQ(saved, (std::vector<std::int64_t>{3})) << "a checkpoint of the last moment";
  EXPECT_EQ(measured, (std::vector<std::int64_t>{2})) << "what was measured before it is recorded";
  EXPECT_EQ(pending_interrupt(), SIGHUP);
}

}  // namespace
}  // namespace clip_lora::testing
