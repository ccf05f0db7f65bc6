#pragma once

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "clip_lora/train/evaluate.hpp"
#include "clip_lora/train/metrics.hpp"
#include "clip_lora/train/trainer.hpp"
#include "support/close.hpp"
#include "train_setting.hpp"

namespace clip_lora::testing {

class TrainerTest : public TrainTest {
 protected:
  model::Prompts prompts() const { return train::tokenize_prompts(tokenizer_, plain_prompts(), kContext); }

  /// A training of `iterations` of `adapter`.
  train::TrainingResult train(const lora::LoraAdapter& adapter, std::int64_t iterations,
                              const train::Validation& validation = {}) {
    engine::TrainingStep step(clip_, adapter, prompts(), {.total_iterations = iterations});
    auto loader = training_loader();
    return train::train(step, adapter, train::batches_of(loader), clip_,
                        {.iterations = iterations, .validation = validation});
  }

  double accuracy() {
    auto loader = evaluation_loader();
    const auto predictions = train::evaluate(clip_, train::class_features(clip_, tokenizer_, plain_prompts()),
                                             loader, [](std::int64_t) {});
    return train::compute_metrics(predictions, 6).accuracy();
  }

  /// A validation that finds `accuracies`, one after the other, and keeps what the adapter was at each.
  train::Validation scripted(const lora::LoraAdapter& adapter, std::vector<double> accuracies,
                             train::Select select) {
    return {.every = 2,
            .accuracy =
                [this, &adapter, accuracies = std::move(accuracies)] {
                  seen_.push_back(snapshot(adapter.state_dict()));
                  return accuracies.at(seen_.size() - 1);
                },
            .select = select};
  }

  static void expect_identical(const io::StateDict& actual, const io::StateDict& expected) {
    ASSERT_EQ(actual.size(), expected.size());
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(identical(actual.at(name), tensor)) << name;
  }

  std::vector<io::StateDict> seen_;
};

inline std::vector<std::int64_t> iterations_of(const train::TrainingResult& result) {
  std::vector<std::int64_t> iterations;
  for (const auto& point : result.validation) iterations.push_back(point.iteration);
  return iterations;
}

}  // namespace clip_lora::testing
