#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/lora/adapter.hpp"

namespace clip_lora::train {

/// What engine::TrainingStep::run takes.
struct Batch {
  at::Tensor images;  ///< pixels [B, R, R, 3], or view requests [B, sizeof(ops::ViewRequest)], uint8
  at::Tensor labels;  ///< [B] int64
};

/// Gives the batches of one iteration after the other.
using NextBatch = std::function<Batch()>;

/// The pixels that `loader` makes, or the requests that `draws` draws. They are referred to.
NextBatch batches_of(data::TrainingLoader& loader);
NextBatch batches_of(data::TrainingDraws& draws);

/// What a progress bar shows.
struct Progress {
  std::int64_t iteration = 0;  ///< finished iterations
  std::int64_t total = 0;
  std::int64_t images = 0;       ///< seen so far
  double learning_rate = 0.0;    ///< of the next iteration
  std::function<double()> loss;  ///< of the last iteration; waits for the device
};

/// Which adapter a training ends with.
enum class Select {
  kLast,  ///< that of the last iteration
  kBest   ///< that of the best validation accuracy, of equal ones the earliest
};

/// Looks at the validation split on the way.
struct Validation {
  std::int64_t every = 0;  ///< iterations between two looks, and one after the last; 0: never
  std::function<double()> accuracy =
      {};  ///< percent, of the model with the adapter merged, in evaluation mode
  Select select = Select::kLast;
};

/// A look at the validation split.
struct ValidationPoint {
  std::int64_t iteration = 0;
  double accuracy = 0.0;  ///< percent
};

struct TrainingResult {
  std::vector<ValidationPoint> validation;
  std::int64_t selected_iteration = 0;  ///< whose adapter the model has now
};

/// Runs `iterations` iterations of `step`, which trains `adapter` of `clip`, on what `next_batch` gives.
/// `on_progress` is called after each. Looks at the validation split change nothing of the training. Throws
/// Interrupted between two iterations once a signal is pending, and Error if the loss is no longer finite at
/// the end of training.
TrainingResult train(engine::TrainingStep& step, const lora::Adapter& adapter, const NextBatch& next_batch,
                     model::Clip& clip, std::int64_t iterations, const Validation& validation,
                     const std::function<void(const Progress&)>& on_progress);

/// scikit-learn's "balanced" weights, [C] float32 on the CPU: N / (C · count of the class); 0 for a class
/// without items.
at::Tensor balanced_class_weights(const std::vector<data::Item>& items, std::int64_t classes);

}  // namespace clip_lora::train
