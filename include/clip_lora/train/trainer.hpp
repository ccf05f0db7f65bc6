#pragma once

#include <cstdint>
#include <functional>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/engine/training_step.hpp"

namespace clip_lora::train {

/// What a progress bar shows.
struct Progress {
  std::int64_t iteration = 0;  ///< finished iterations
  std::int64_t total = 0;
  std::int64_t images = 0;     ///< seen so far
  double learning_rate = 0.0;  ///< of the next iteration
  std::function<double()> loss;  ///< of the last iteration; waits for the device
};

/// Runs `iterations` iterations of `step` on batches of `loader`. `on_progress` is called after each.
/// Throws Interrupted between two iterations once a signal is pending, and Error if the loss is no longer finite at the
/// end of training.
void train(engine::TrainingStep& step, data::TrainingLoader& loader, model::Clip& clip, std::int64_t iterations,
           const std::function<void(const Progress&)>& on_progress);

}  // namespace clip_lora::train
