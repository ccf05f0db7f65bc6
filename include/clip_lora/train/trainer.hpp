#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/io/state_dict.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::train {

/// What engine::TrainingStep::run takes.
struct Batch {
  at::Tensor images;  ///< pixels [B, R, R, 3], or view requests [B, sizeof(ops::ViewRequest)], uint8; of
                      ///< several processes each has its share
  at::Tensor labels;  ///< [B] int64
  std::optional<model::Prompts> texts = {};  ///< one of each image, with the contrastive loss
  std::vector<std::int64_t> items = {};      ///< as data::Batch::items; what a message may name
};

/// The training came to a loss or gradients that are not finite, or in float16 to nothing but. The adapter is
/// then as the last update left it that was finite; with Select::kBest, after a look, the best so far.
class Diverged : public Error {
 public:
  using Error::Error;
};

/// Gives the batches of one iteration after the other.
using NextBatch = std::function<Batch()>;

/// The texts of a batch: of its items, the first of which is the sample `first_sample` of the training.
using DrawTexts =
    std::function<model::Prompts(const std::vector<std::int64_t>& items, std::int64_t first_sample)>;

/// Draws one of its group's texts for an item each time that the item is drawn, as data::draw_text does by
/// `seed`. groups: the texts of each; group_of_item: by item. Throws DataError as text::Tokenizer::tokenize.
DrawTexts draw_texts(const text::Tokenizer& tokenizer, const std::vector<std::vector<std::string>>& groups,
                     std::vector<std::int64_t> group_of_item, std::int64_t context_length, std::uint64_t seed,
                     text::Overlong overlong);

/// The pixels that `loader` makes, or the requests that `draws` draws, with texts if there is something that
/// draws them. They are referred to.
NextBatch batches_of(data::TrainingLoader& loader, DrawTexts texts = {});
NextBatch batches_of(data::TrainingDraws& draws, DrawTexts texts = {});

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
      {};              ///< percent, of the model with the adapter merged, in evaluation mode
  double scale = 1.0;  ///< that it is merged at: see lora::Adapter::adapted
  Select select = Select::kLast;
};

/// A look at the validation split.
struct ValidationPoint {
  std::int64_t iteration = 0;
  double accuracy = 0.0;  ///< percent
};

/// All that a training needs to go on from one of its iterations as if nothing had happened.
struct TrainingState {
  io::StateDict step;                       ///< engine::TrainingStep::state()
  std::int64_t iteration = 0;               ///< finished iterations
  std::int64_t images = 0;                  ///< seen so far
  double loss = 0.0;                        ///< of the last iteration
  std::vector<ValidationPoint> validation;  ///< the looks so far
  ValidationPoint best = {};                ///< with Select::kBest the one that counts so far
  at::Tensor best_parameters = {};          ///< its adapter, [n] float32 on the CPU: Adapter::parameters()
                                            ///< one after the other; undefined before the first look
};

/// Keeps a training's state on the way.
struct Checkpoints {
  std::int64_t every = 0;  ///< iterations between two, and one after the last; 0: none
  std::function<void(const TrainingState&)> save = {};  ///< what it throws ends the training
  std::optional<TrainingState> resumed = {};            ///< to go on from
};

/// What is known of one iteration.
struct Measurement {
  std::int64_t iteration = 0;      ///< from 1
  double epoch = 0.0;              ///< passes over the training images, with this iteration
  double loss = 0.0;               ///< the batch's mean, before the update
  double learning_rate = 0.0;      ///< of its update
  double images_per_second = 0.0;  ///< since the measurement before, without looks and checkpoints
  double gradient_norm = 0.0;      ///< see engine::Measurements
  double loss_scale = 1.0;         ///< likewise
};

/// Watches a training without waiting for the device.
struct Measuring {
  std::int64_t every = 0;   ///< iterations between two, and one after the last; 0: none
  std::int64_t images = 1;  ///< in an epoch
  std::function<void(const Measurement&)> record = {};  ///< gets them in order, a few iterations late
};

/// How long a training is, and what happens on the way.
struct TrainingPlan {
  std::int64_t iterations = 1;
  Validation validation = {};
  Checkpoints checkpoints = {};
  Measuring measuring = {};
  std::function<void(const Progress&)> on_progress = {};       ///< after each iteration
  std::function<std::string(std::int64_t item)> picture = {};  ///< its name, for messages
  engine::ProcessGroup* processes =
      nullptr;  ///< those of the step: a signal to one stops all at one iteration
};

struct TrainingResult {
  std::vector<ValidationPoint> validation;
  std::int64_t selected_iteration = 0;  ///< whose adapter the model has now
  std::int64_t images = 0;              ///< seen in all
  double loss = 0.0;                    ///< of the last iteration
};

/// Runs `step`, which trains `adapter` of `clip`, on what `next_batch` gives. If the step keeps averages,
/// they are what is looked at and what the adapter is in the end. Looks at the validation split, checkpoints
/// and measurements change nothing of the training. Goes on from plan.checkpoints.resumed if that is there:
/// `next_batch` then has to begin behind as many batches. Throws Interrupted between two iterations or in a
/// look once a signal is pending, having saved a checkpoint if there are to be any; Diverged, on the CPU after
/// the iteration that did it, on CUDA, where nothing waits, up to 13 later; and Error if a process is lost.
TrainingResult train(engine::TrainingStep& step, const lora::Adapter& adapter, const NextBatch& next_batch,
                     model::Clip& clip, const TrainingPlan& plan);

/// scikit-learn's "balanced" weights, [C] float32 on the CPU: N / (C · count of the class); 0 for a class
/// without items.
at::Tensor balanced_class_weights(const std::vector<data::Item>& items, std::int64_t classes);

}  // namespace clip_lora::train
