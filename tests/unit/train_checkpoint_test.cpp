#include <cmath>
#include <csignal>
#include <functional>
#include <optional>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/train/checkpoint.hpp"
#include "support/files.hpp"
#include "support/throws.hpp"
#include "train_trainer_setting.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// A training of seven iterations that is checkpointed every two, and one that goes on from a checkpoint.
class ResumedTraining : public TrainerTest {
 protected:
  struct Trained {
    io::StateDict adapter;
    train::TrainingResult result;
    std::vector<train::Measurement> measurements;
    std::vector<train::TrainingState> states;
  };

  Trained trained(std::optional<train::TrainingState> resumed, train::Select select, std::int64_t seed = 5) {
    torch::manual_seed(seed);
    const lora::LoraAdapter adapter(clip_, {});
    engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 7, .dropout_seed = 3});
    data::TrainingLoader loader(
        items_, kPreprocessing,
        {.batch_size = 4, .seed = 1, .workers = 1, .skipped_batches = resumed ? resumed->iteration : 0});
    Trained trained;
    train::TrainingPlan plan;
    plan.iterations = 7;
    plan.validation = {.every = 3, .accuracy = [this] { return accuracy(); }, .select = select};
    plan.checkpoints = {
        .every = 2,
        .save = [&](const train::TrainingState& state) { trained.states.push_back(through_a_file(state)); },
        .resumed = std::move(resumed)};
    plan.measuring = {.every = 1, .images = 11, .record = [&](const train::Measurement& measurement) {
                        trained.measurements.push_back(measurement);
                      }};
    trained.result = train::train(step, adapter, train::batches_of(loader), clip_, plan);
    trained.adapter = snapshot(adapter.state_dict());
    return trained;
  }

  train::TrainingState through_a_file(const train::TrainingState& state) const {
    const train::TrainingSettings settings = {{"--r", "2"}};
    train::write_checkpoint(folder_ / "checkpoint.safetensors", {state, settings});
    const auto read = train::read_checkpoint(folder_ / "checkpoint.safetensors");
    EXPECT_EQ(read.settings, settings);
    return read.state;
  }

  void expect_the_same_from_every_checkpoint(train::Select select) {
    const Trained whole = trained({}, select);
    ASSERT_EQ(whole.states.size(), 4U);  // after 2, 4, 6 and 7
    for (const auto& state : whole.states) {
      const Trained rest =
          trained(state, select, /*seed=*/99);  // another fresh adapter, which is overwritten
      expect_identical(rest.adapter, whole.adapter);
      EXPECT_EQ(rest.result.loss, whole.result.loss);
      EXPECT_EQ(rest.result.images, whole.result.images);
      EXPECT_EQ(rest.result.selected_iteration, whole.result.selected_iteration);
      ASSERT_EQ(rest.result.validation.size(), whole.result.validation.size());
      for (std::size_t i = 0; i < whole.result.validation.size(); ++i) {
        EXPECT_EQ(rest.result.validation[i].iteration, whole.result.validation[i].iteration);
        EXPECT_EQ(rest.result.validation[i].accuracy, whole.result.validation[i].accuracy);
      }
      const auto before = static_cast<std::size_t>(state.iteration);
      ASSERT_EQ(rest.measurements.size(), 7 - before);
      for (std::size_t i = before; i < 7; ++i) {
        EXPECT_EQ(rest.measurements[i - before].iteration, whole.measurements[i].iteration);
        EXPECT_EQ(rest.measurements[i - before].epoch, whole.measurements[i].epoch);
        EXPECT_EQ(rest.measurements[i - before].loss, whole.measurements[i].loss);
        EXPECT_EQ(rest.measurements[i - before].gradient_norm, whole.measurements[i].gradient_norm);
      }
    }
  }
};

TEST_F(ResumedTraining, EndsWithTheSameAdapterFromEveryCheckpoint) {
  expect_the_same_from_every_checkpoint(train::Select::kLast);
}

TEST_F(ResumedTraining, SelectsTheSameAdapterFromEveryCheckpoint) {
  expect_the_same_from_every_checkpoint(train::Select::kBest);
}

TEST_F(ResumedTraining, CheckpointsChangeNothingOfTheTraining) {
  torch::manual_seed(5);
  const lora::LoraAdapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 7, .dropout_seed = 3});
  auto loader = training_loader();
  train::train(step, adapter, train::batches_of(loader), clip_, {.iterations = 7});
  expect_identical(trained({}, train::Select::kLast).adapter, adapter.state_dict());
}

TEST_F(ResumedTraining, RefusesAStateThatIsNotWhole) {
  const train::TrainingState state = trained({}, train::Select::kBest).states.at(1);
  const auto refused = [&](const auto& change) {
    train::TrainingState changed = state;
    changed.step = snapshot(state.step);
    change(changed);
    return message_of<CheckpointError>([&] { trained(changed, train::Select::kBest); });
  };
  EXPECT_THAT(refused([](auto& changed) { changed.step.erase("counters"); }), HasSubstr("'counters'"));
  EXPECT_THAT(refused([](auto& changed) { changed.step["more"] = at::zeros({1}); }), HasSubstr("'more'"));
  EXPECT_THAT(refused([](auto& changed) { changed.step["first_moments"] = at::zeros({3}); }),
              HasSubstr("'first_moments'"));
  EXPECT_THAT(refused([](auto& changed) { changed.step["counters"][0] = 8; }), HasSubstr("iteration 8"));
  EXPECT_THAT(refused([](auto& changed) { changed.step["counters"][0] = 2.5; }), HasSubstr("2.5"));
  EXPECT_THAT(refused([](auto& changed) { changed.iteration = 5; }), HasSubstr("iteration 5"));
  EXPECT_THAT(refused([](auto& changed) { changed.best_parameters = at::Tensor(); }),
              HasSubstr("best adapter"));
}

TEST_F(ResumedTraining, AnErrorOfALookIsNoReasonForACheckpoint) {
  const lora::LoraAdapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 3});
  auto loader = training_loader();
  int saved = 0;
  train::TrainingPlan plan;
  plan.iterations = 3;
  plan.validation = {.every = 2, .accuracy = []() -> double { throw DataError("broken picture"); }};
  plan.checkpoints = {.every = 100, .save = [&](const train::TrainingState&) { ++saved; }};
  message_of<DataError>([&] { train::train(step, adapter, train::batches_of(loader), clip_, plan); });
  EXPECT_EQ(saved, 0);
}

TEST_F(ResumedTraining, AnInterruptedLookIsMadeUpFor) {
  const lora::LoraAdapter adapter(clip_, {});
  std::optional<train::TrainingState> kept;
  {
    engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 3});
    auto loader = training_loader();
    train::TrainingPlan plan;
    plan.iterations = 3;
    plan.validation = {.every = 2, .accuracy = []() -> double { throw Interrupted(SIGTERM, "in a look"); }};
    plan.checkpoints = {.every = 100, .save = [&](const train::TrainingState& state) { kept = state; }};
    message_of<Interrupted>([&] { train::train(step, adapter, train::batches_of(loader), clip_, plan); });
  }
  ASSERT_TRUE(kept);
  EXPECT_EQ(kept->iteration, 2);
  engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = 3});
  data::TrainingLoader loader(items_, kPreprocessing,
                              {.batch_size = 4, .seed = 1, .workers = 1, .skipped_batches = 2});
  train::TrainingPlan plan;
  plan.iterations = 3;
  plan.validation = {.every = 2, .accuracy = [] { return 12.5; }};
  plan.checkpoints.resumed = kept;
  const auto result = train::train(step, adapter, train::batches_of(loader), clip_, plan);
  EXPECT_EQ(iterations_of(result), (std::vector<std::int64_t>{2, 3}));
}

/// A training of averages, looked at after three and six of seven iterations.
class AveragedTraining : public TrainerTest {
 protected:
  struct Trained {
    io::StateDict adapter;
    std::vector<train::TrainingState> states;
  };

  /// `look` may throw an Interrupted; then the adapter is what it is at that moment.
  Trained trained(const std::function<double()>& look, std::optional<train::TrainingState> resumed = {}) {
    torch::manual_seed(resumed ? 99 : 5);  // a resumed adapter's first values do not matter
    const lora::LoraAdapter adapter(clip_, {});
    engine::TrainingStep step(
        clip_, adapter, prompts(),
        {.optimiser = {.average_decay = 0.9}, .total_iterations = 7, .dropout_seed = 3});
    data::TrainingLoader loader(
        items_, kPreprocessing,
        {.batch_size = 4, .seed = 1, .workers = 1, .skipped_batches = resumed ? resumed->iteration : 0});
    Trained trained;
    train::TrainingPlan plan;
    plan.iterations = 7;
    plan.validation = {.every = 3, .accuracy = look};
    plan.checkpoints = {.every = 3,
                        .save = [&](const train::TrainingState& state) { trained.states.push_back(state); },
                        .resumed = std::move(resumed)};
    try {
      train::train(step, adapter, train::batches_of(loader), clip_, plan);
    } catch (const Interrupted&) {
    }
    trained.adapter = snapshot(adapter.state_dict());
    return trained;
  }
};

TEST_F(AveragedTraining, InterruptedInALookIsCheckpointedWithTheTrainedWeightsAndEndsTheSame) {
  const Trained whole = trained([] { return 50.0; });
  ASSERT_EQ(whole.states.size(), 3U);  // after 3, 6 and 7
  const Trained stopped = trained([]() -> double { throw Interrupted(SIGTERM, "in a look"); });
  ASSERT_EQ(stopped.states.size(), 1U);
  EXPECT_EQ(stopped.states[0].iteration, 3);
  EXPECT_FALSE(at::equal(stopped.states[0].step.at("parameters"), stopped.states[0].step.at("averages")))
      << "or else this test would see nothing";
  expect_identical(stopped.states[0].step, whole.states[0].step);
  expect_identical(trained([] { return 50.0; }, stopped.states[0]).adapter, whole.adapter);
}

class CheckpointFile : public ::testing::Test {
 protected:
  void SetUp() override {
    train::TrainingState state;
    state.step = {{"parameters", at::arange(6, at::kFloat)}};
    state.iteration = 12;
    state.images = 345;
    state.loss = 0.1;
    state.validation = {{5, 50.0}, {10, 62.5}};
    state.best = {10, 62.5};
    state.best_parameters = at::arange(6, at::kFloat) / 3.0;
    train::write_checkpoint(path_, {state, {{"--r", "2"}, {"--lr", "0.0002"}}});
  }

  std::string complaint() const {
    return message_of<CheckpointError>([&] { train::read_checkpoint(path_); });
  }

  /// The file with `tensors` or `metadata` changed.
  template <typename Change>
  void rewrite(const Change& change) const {
    io::Safetensors file = io::read_safetensors(path_);
    change(file);
    io::write_safetensors(path_, file.tensors, file.metadata);
  }

  TemporaryFolder folder_;
  const std::filesystem::path path_ = folder_ / "checkpoint.safetensors";
};

TEST_F(CheckpointFile, HoldsWhatWasWritten) {
  const auto [state, settings] = train::read_checkpoint(path_);
  EXPECT_EQ(settings, (train::TrainingSettings{{"--r", "2"}, {"--lr", "0.0002"}}));
  EXPECT_EQ(state.iteration, 12);
  EXPECT_EQ(state.images, 345);
  EXPECT_EQ(state.loss, 0.1);
  ASSERT_EQ(state.validation.size(), 2U);
  EXPECT_EQ(state.validation[1].iteration, 10);
  EXPECT_EQ(state.validation[1].accuracy, 62.5);
  EXPECT_EQ(state.best.iteration, 10);
  EXPECT_EQ(state.best.accuracy, 62.5);
  EXPECT_TRUE(identical(state.best_parameters, at::arange(6, at::kFloat) / 3.0));
  EXPECT_TRUE(identical(state.step.at("parameters"), at::arange(6, at::kFloat)));
}

TEST_F(CheckpointFile, CutOffAnywhereIsAnErrorThatNamesIt) {
  const std::string bytes = read_bytes(path_);
  for (std::size_t length = 0; length < bytes.size(); length += 7) {
    write_bytes(path_, bytes.substr(0, length));
    EXPECT_THAT(complaint(), HasSubstr(path_.string())) << length;
  }
  std::filesystem::remove(path_);
  EXPECT_THAT(complaint(), HasSubstr(path_.string()));
}

TEST_F(CheckpointFile, WithNaNIsAnErrorThatNamesTheTensor) {
  rewrite([](auto& file) {
    for (const std::string name : {"step.parameters", "best_parameters"}) {
      file.tensors[name] = file.tensors.at(name).clone();
      file.tensors[name][2] = std::nan("");
    }
  });
  EXPECT_THAT(complaint(), AllOf(HasSubstr(path_.string()), HasSubstr("best_parameters (1 of 6 values)"),
                                 HasSubstr("parameters (1 of 6 values)")));
}

TEST_F(CheckpointFile, OfAnotherKindOrVersionIsAnError) {
  rewrite([](auto& file) { file.metadata["version"] = "2"; });
  EXPECT_THAT(complaint(), AllOf(HasSubstr("version '2'"), HasSubstr("reads 1")));
  rewrite([](auto& file) { file.metadata["format"] = "pt"; });
  EXPECT_THAT(complaint(), HasSubstr("do not say that it is one"));
}

TEST_F(CheckpointFile, WithAPartMissingOrBentIsAnErrorThatNamesThePart) {
  const std::string bytes = read_bytes(path_);
  const auto changed = [&](const auto& change) {
    write_bytes(path_, bytes);
    rewrite(change);
    return complaint();
  };
  EXPECT_THAT(changed([](auto& file) { file.metadata["iteration"] = "-1"; }), HasSubstr("iteration"));
  EXPECT_THAT(changed([](auto& file) { file.metadata["images"] = "12x"; }), HasSubstr("'12x'"));
  EXPECT_THAT(changed([](auto& file) { file.metadata.erase("best_iteration"); }),
              HasSubstr("best_iteration"));
  EXPECT_THAT(changed([](auto& file) { file.tensors.erase("loss"); }), HasSubstr("'loss'"));
  EXPECT_THAT(changed([](auto& file) { file.tensors["loss"] = at::zeros({2}, at::kDouble); }),
              HasSubstr("'loss'"));
  EXPECT_THAT(changed([](auto& file) {
                file.tensors["validation"] = at::zeros({2, 3}, at::kDouble);
              }),
              HasSubstr("'validation'"));
  EXPECT_THAT(changed([](auto& file) {
                file.tensors["validation"] = at::full({1, 2}, -1.0, at::kDouble);
              }),
              HasSubstr("'validation'"));
}

TEST(RequireSettings, NamesEveryDifferenceOnBothSides) {
  const train::TrainingSettings saved = {{"--lr", "0.001"}, {"--r", "2"}, {"old", "1"}};
  EXPECT_NO_THROW(train::require_settings(saved, saved, "c"));
  const auto message = message_of<CheckpointError>([&] {
    train::require_settings(saved, {{"--lr", "0.002"}, {"--r", "2"}, {"new", "3"}}, "runs/c");
  });
  EXPECT_THAT(message, HasSubstr("'runs/c'"));
  EXPECT_THAT(message, HasSubstr("--lr 0.001 (this run: 0.002)"));
  EXPECT_THAT(message, HasSubstr("new nothing (this run: 3)"));
  EXPECT_THAT(message, HasSubstr("old 1 (this run: nothing)"));
  EXPECT_THAT(message, Not(HasSubstr("--r ")));
}

}  // namespace
}  // namespace clip_lora::testing
