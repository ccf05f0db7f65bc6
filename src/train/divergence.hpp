#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "clip_lora/train/trainer.hpp"

namespace clip_lora::train {

/// Notices that a training has diverged, and can say where.
class DivergenceWatch {
 public:
  /// `iteration`: finished ones. `plan` is referred to.
  DivergenceWatch(const TrainingPlan& plan, std::int64_t iteration) : plan_(plan), last_good_(iteration) {}

  /// The batch of an iteration that has begun, as Batch::items.
  void remember(std::int64_t iteration, std::vector<std::int64_t> items);

  /// What iteration `iteration` measured. Throws Diverged if its loss or any gradient since the last look was
  /// not finite; in float16, where some overflow, only if the loss scale has fallen to its floor or this was
  /// the last iteration.
  void look(std::int64_t iteration, double learning_rate, const engine::Measurements& measured);

 private:
  struct SeenBatch {
    std::int64_t iteration;
    std::vector<std::int64_t> items;
  };

  [[noreturn]] void fail(const std::string& what, std::int64_t first, std::int64_t last, double learning_rate,
                         const engine::Measurements& measured) const;
  std::string pictures(std::int64_t first, std::int64_t last) const;

  const TrainingPlan& plan_;
  std::int64_t last_good_;         // iteration
  std::deque<SeenBatch> batches_;  // since then
};

}  // namespace clip_lora::train
