#include "run_training.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <memory>
#include <optional>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/train/evaluate.hpp"

namespace clip_lora::cli {
namespace {

constexpr double kBytesPerGib = 1024.0 * 1024.0 * 1024.0;

data::TrainingLoaderOptions loader_options(const RunOptions& options) {
  data::TrainingLoaderOptions loader;
  loader.batch_size = static_cast<int>(options.training.batch_size);
  loader.seed = static_cast<std::uint64_t>(options.data.seed);
  loader.workers = options.images.worker_count();
  loader.image_memory_bytes = static_cast<std::uint64_t>(options.images.memory_gib * kBytesPerGib);
  return loader;
}

engine::TrainingStepOptions step_options(const RunOptions& options, const RunData& data,
                                         const text::ClassPrompts& prompts,
                                         const image::Preprocessing& preprocessing, std::int64_t iterations,
                                         at::Device device) {
  engine::TrainingStepOptions step;
  step.optimiser = options.training.optimiser;
  step.total_iterations = iterations;
  step.prompts_per_class = static_cast<std::int64_t>(prompts.front().size());
  step.dropout_seed = options.data.seed;
  step.batch_size = std::min(options.training.batch_size, static_cast<std::int64_t>(data.train.size()));
  step.preprocessing = preprocessing;
  if (options.training.class_weights == "balanced") {
    const auto classes = static_cast<std::int64_t>(data.dataset.class_names.size());
    step.class_weights = train::balanced_class_weights(data.train, classes).to(device);
  }
  return step;
}

void print_plan(const RunOptions& options, const TrainingReport& report) {
  std::cout << "plan       " << with_commas(options.epochs()) << " epochs of " << with_commas(report.images)
            << " images in batches of " << options.training.batch_size << ": "
            << with_commas(report.iterations) << " iterations" << std::endl;
}

std::string in_memory(std::size_t kept, std::size_t images) {
  return with_commas(static_cast<std::int64_t>(kept)) + " of " +
         with_commas(static_cast<std::int64_t>(images)) + " training images stay in memory";
}

/// The training images' batches: cut out on the device where the decoded images fit there, else by the CPU.
class TrainingImages {
 public:
  TrainingImages(const RunOptions& options, const RunData& data, const model::LoadedClip& model) {
    const at::Device device = model.clip->device();
    const data::TrainingLoaderOptions loader = loader_options(options);
    if (device.is_cuda()) {
      const auto free = static_cast<std::uint64_t>(free_memory_bytes(device) / 2);
      draws_ = data::TrainingDraws::make(
          data.train, model.preprocessing,
          {.batch_size = loader.batch_size,
           .seed = loader.seed,
           .workers = loader.workers,
           .device = device,
           .store_bytes = loader.image_memory_bytes > 0 ? std::min(loader.image_memory_bytes, free) : free});
    }
    if (draws_) return;
    loader_.emplace(data.train, model.preprocessing, loader);
    if (loader_->images_in_memory() == loader_->images()) return;
    const double gib = options.images.memory_gib;
    note_ = in_memory(loader_->images_in_memory(), loader_->images()) +
            (gib > 0.0 ? " (" + fixed(gib, 1) + " GiB)" : "") + ", the others are decoded at each draw";
  }

  train::NextBatch batches() { return draws_ ? train::batches_of(*draws_) : train::batches_of(*loader_); }

  /// What a training step has to know of them.
  void describe(engine::TrainingStepOptions& step) const {
    if (!draws_) return;
    step.pictures = draws_->store();
    step.largest_side_px = draws_->largest_side();
  }

  /// For the terminal; empty if all is as usual.
  const std::string& note() const { return note_; }

 private:
  std::unique_ptr<data::TrainingDraws> draws_;
  std::optional<data::TrainingLoader> loader_;
  std::string note_;
};

void print_look(std::int64_t iteration, std::int64_t iterations, double accuracy) {
  std::cout << "validation " << percent(accuracy) << "   after " << with_commas(iteration) << " of "
            << with_commas(iterations) << " iterations" << std::endl;
}

}  // namespace

TrainingReport train_adapter(const RunOptions& options, const RunData& data, const model::LoadedClip& model,
                             const lora::Adapter& adapter, const text::Tokenizer& tokenizer,
                             const text::ClassPrompts& prompts,
                             const std::function<double()>& validation_accuracy) {
  const bool quiet = options.compute.quiet;
  const Stopwatch whole;
  model::Clip clip = model.clip;
  TrainingReport report;
  report.images = static_cast<std::int64_t>(data.train.size());
  report.iterations = options.iterations(report.images);
  log_detail(with_commas(adapter.parameter_count()) + " trainable parameters in " +
             std::to_string(adapter.blocks().size()) + " blocks");
  if (!options.data.shots && !quiet) print_plan(options, report);

  TrainingImages images(options, data, model);
  if (!images.note().empty() && !quiet) std::cout << "images     " << images.note() << std::endl;
  const model::Prompts tokens =
      train::tokenize_prompts(tokenizer, prompts, clip->architecture().context_length);
  auto step_settings =
      step_options(options, data, prompts, model.preprocessing, report.iterations, clip->device());
  images.describe(step_settings);
  engine::TrainingStep step(clip, adapter, tokens, step_settings);

  if (const std::string parts = step.parts(); !parts.empty() && !quiet) {
    std::cout << "memory     activations do not fit: " << parts << ", computed twice" << std::endl;
  }

  const Stopwatch stopwatch;
  const auto speed = [&] {
    return images_per_second(report.images_seen, stopwatch.seconds() - report.validation_seconds);
  };
  ProgressBar bar("training", "iterations", report.iterations, !quiet);
  std::int64_t iteration = 0;
  const auto show = [&](const train::Progress& progress) {
    iteration = progress.iteration;
    report.images_seen = progress.images;
    if (iteration == progress.total) report.loss = progress.loss();
    bar.update(iteration, [&] {
      return "loss " + fixed(progress.loss(), 3) + "  lr " + scientific(progress.learning_rate) + "  " +
             speed();
    });
  };
  const auto look = [&] {
    const Stopwatch looking;
    const double accuracy = validation_accuracy();
    report.validation_seconds += looking.seconds();
    bar.clear();
    if (!quiet) print_look(iteration, report.iterations, accuracy);
    return accuracy;
  };
  const train::Validation validation = {
      options.training.eval_every, look,
      options.training.select == "best" ? train::Select::kBest : train::Select::kLast};
  report.result = train::train(step, adapter, images.batches(), clip, report.iterations, validation, show);
  bar.clear();
  if (quiet) return report;
  std::cout << "training   " << with_commas(report.iterations) << " iterations   loss "
            << fixed(report.loss, 3) << "   " << speed() << "   " << duration(whole.seconds()) << std::endl;
  if (validation.select == train::Select::kBest) {
    std::cout << "selected   the adapter after " << with_commas(report.result.selected_iteration)
              << " iterations" << std::endl;
  }
  return report;
}

}  // namespace clip_lora::cli
