#include <cmath>
#include <limits>

#include "support/throws.hpp"
#include "train/divergence.hpp"
#include "train_trainer_setting.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A training of six iterations in which the pixels of one are not a number.
class DivergingTraining : public TrainerTest {
 protected:
  static constexpr std::int64_t kIterations = 6;

  /// Batches of two pictures, in order; of iteration `bad` one holds a NaN.
  train::NextBatch batches(std::int64_t bad) const {
    const at::Tensor all = normalised().to(at::kFloat);
    return [this, all, bad, iteration = std::int64_t{0}]() mutable {
      const std::int64_t first = 2 * iteration++ % 10;
      at::Tensor images = all.narrow(0, first, 2).clone();
      if (iteration == bad) images[1][2][7][7] = kNaN;
      at::Tensor labels = at::empty({2}, at::kLong);
      for (int i = 0; i < 2; ++i) labels[i] = items_[static_cast<std::size_t>(first + i)].label;
      return train::Batch{images, labels, {}, {first, first + 1}};
    };
  }

  train::TrainingPlan plan(std::int64_t iterations = kIterations) const {
    train::TrainingPlan plan;
    plan.iterations = iterations;
    plan.picture = [](std::int64_t item) { return "picture " + std::to_string(item); };
    return plan;
  }

  /// What the training that has diverged in iteration `bad` says, and leaves in `adapter`.
  std::string complaint(const lora::LoraAdapter& adapter, std::int64_t bad, const train::TrainingPlan& plan,
                        double average_decay = 0.0) {
    engine::TrainingStepOptions options;
    options.total_iterations = kIterations;
    options.optimiser.average_decay = average_decay;
    engine::TrainingStep step(clip_, adapter, prompts(), options);
    return message_of<train::Diverged>([&] { train::train(step, adapter, batches(bad), clip_, plan); });
  }

  /// The adapter after `iterations` good ones.
  io::StateDict good(std::int64_t iterations, double average_decay = 0.0) {
    torch::manual_seed(5);
    const lora::LoraAdapter adapter(clip_, {});
    engine::TrainingStepOptions options;
    options.total_iterations = kIterations;
    options.optimiser.average_decay = average_decay;
    engine::TrainingStep step(clip_, adapter, prompts(), options);
    train::train(step, adapter, batches(0), clip_, plan(iterations));
    return snapshot(adapter.state_dict());
  }
};

TEST_F(DivergingTraining, StopsAtTheIterationAndNamesItsPictures) {
  const lora::LoraAdapter adapter(clip_, {});
  EXPECT_THAT(complaint(adapter, 4, plan()),
              AllOf(HasSubstr("the loss is nan at iteration 4 of 6"), HasSubstr("gradient norm nan"),
                    HasSubstr("learning rate 0.00010"), HasSubstr("pictures picture 6, picture 7)"),
                    HasSubstr("--lr"), Not(HasSubstr("--precision"))));
}

TEST_F(DivergingTraining, LeavesTheAdapterOfTheIterationBefore) {
  for (const double average_decay : {0.0, 0.9}) {  // or the average of them all
    torch::manual_seed(5);
    const lora::LoraAdapter adapter(clip_, {});
    complaint(adapter, 4, plan(), average_decay);
    expect_identical(adapter.state_dict(), good(3, average_decay));
  }
}

TEST_F(DivergingTraining, LeavesTheBestAdapterSoFarIfThatIsWanted) {
  torch::manual_seed(5);
  const lora::LoraAdapter adapter(clip_, {});
  auto selecting = plan();
  selecting.validation = scripted(adapter, {70.0, 60.0}, train::Select::kBest);  // after 2 and 4 iterations
  complaint(adapter, 5, selecting);
  expect_identical(adapter.state_dict(), good(2));
}

TEST_F(DivergingTraining, KeepsNoCheckpointOfIt) {
  const lora::LoraAdapter adapter(clip_, {});
  std::vector<std::int64_t> saved, measured;
  auto checkpointing = plan();
  checkpointing.checkpoints = {
      .every = 1, .save = [&](const train::TrainingState& state) { saved.push_back(state.iteration); }};
  checkpointing.measuring = {.every = 4, .images = 11, .record = [&](const train::Measurement& measurement) {
                               measured.push_back(measurement.iteration);
                               EXPECT_TRUE(std::isnan(measurement.loss));
                             }};
  complaint(adapter, 4, checkpointing);
  EXPECT_THAT(saved, ::testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(measured, ::testing::ElementsAre(4)) << "a log shows what happened";
}

TEST_F(DivergingTraining, IsNoticedInTheLastIterationToo) {
  const lora::LoraAdapter adapter(clip_, {});
  EXPECT_THAT(complaint(adapter, kIterations, plan()), HasSubstr("at iteration 6 of 6"));
}

/// As on CUDA, where not every iteration is looked at.
class Watch : public ::testing::Test {
 protected:
  Watch() {
    plan_.iterations = 100;
    plan_.picture = [](std::int64_t item) { return "p" + std::to_string(item); };
  }

  /// Looks at iteration `iteration` of one picture each, of that number.
  void look(std::int64_t iteration, const engine::Measurements& measured) {
    for (; begun_ < iteration + 4; ++begun_) watch_.remember(begun_ + 1, {begun_ + 1});
    watch_.look(iteration, 0.5, measured);
  }
  std::string complaint(std::int64_t iteration, const engine::Measurements& measured) {
    return message_of<train::Diverged>([&] { look(iteration, measured); });
  }

  train::TrainingPlan plan_;
  train::DivergenceWatch watch_{plan_, 20};
  std::int64_t begun_ = 20;
};

TEST_F(Watch, NamesTheIterationsThatItMayHaveBeen) {
  look(30, {.loss = 1.5});
  EXPECT_THAT(complaint(33, {.loss = 1.5, .gradient_norm = 3.0, .skipped = 1}),
              AllOf(HasSubstr("gradients are not finite at one of the iterations 31 to 33 of 100"),
                    HasSubstr("(loss 1.5, gradient norm 3, learning rate 0.5; pictures p31, p32, p33)")));
}

TEST_F(Watch, LetsFloat16OverflowUntilTheLossScaleIsAtItsFloor) {
  look(30, {.loss = kNaN, .gradient_norm = kNaN, .loss_scale = 512.0, .scales_loss = true, .skipped = 5});
  look(40, {.loss = kNaN, .gradient_norm = kNaN, .loss_scale = 0x1p-10, .scales_loss = true, .skipped = 25});
  EXPECT_THAT(
      complaint(50, {.loss = 2.0, .gradient_norm = HUGE_VAL, .loss_scale = 0x1p-11, .scales_loss = true}),
      AllOf(HasSubstr("loss scale has fallen to 0.0004883 at iteration 50"), HasSubstr("gradient norm inf"),
            HasSubstr("pictures p50)"), HasSubstr("--precision bf16 or fp32")));
}

TEST_F(Watch, HasNoLossThatIsNotFiniteInTheEnd) {
  EXPECT_THAT(complaint(100, {.loss = HUGE_VAL, .loss_scale = 512.0, .scales_loss = true}),
              HasSubstr("the loss is inf at iteration 100 of 100"));
}

}  // namespace
}  // namespace clip_lora::testing
