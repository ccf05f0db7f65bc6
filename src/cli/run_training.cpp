#include "run_training.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/engine/training_step.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "metrics_log.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {
namespace {

// What activations may take with --deterministic, whatever is free: of a GPU's memory one part of so many.
constexpr std::int64_t kFixedParts = 2;
constexpr std::int64_t kFixedCpuBytes = std::int64_t{8} << 30;

/// What activations may take, in bytes; 0: what is free on a GPU.
std::int64_t activation_bytes(at::Device device, bool deterministic, const engine::ProcessGroup* processes) {
  if (device.is_cuda()) return deterministic ? total_memory_bytes(device) / kFixedParts : 0;
  if (deterministic) return kFixedCpuBytes;
  const int sharers = processes == nullptr ? 1 : processes->local_size();
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(available_memory_bytes()) / sharers);
}

data::TrainingLoaderOptions loader_options(const RunOptions& options, std::int64_t skipped_batches,
                                           const engine::ProcessGroup* processes) {
  data::TrainingLoaderOptions loader;
  loader.batch_size = static_cast<int>(options.training.batch_size);
  loader.seed = static_cast<std::uint64_t>(options.data.seed);
  loader.augmentation = image::parse_augmentation(options.training.augment);
  loader.workers = options.images.worker_count();
  loader.image_memory_bytes = static_cast<std::uint64_t>(options.images.memory_gib * kBytesPerGib);
  loader.skipped_batches = skipped_batches;
  if (processes == nullptr) return loader;
  loader.process = processes->rank();
  loader.processes = processes->size();
  if (options.images.workers == 0) loader.workers = std::max(1, loader.workers / processes->local_size());
  return loader;
}

engine::TrainingStepOptions step_options(const RunOptions& options, const RunData& data,
                                         const TrainingTexts& texts, const model::LoadedClip& model,
                                         std::int64_t iterations) {
  const model::Clip& clip = model.clip;
  engine::TrainingStepOptions step;
  step.optimiser = options.training.optimiser;
  step.total_iterations = iterations;
  if (options.training.takes_pairs()) {
    step.loss = engine::Loss::kContrastive;
    step.logit_scale = model.logit_scale;
    step.margin = options.training.margin;
    step.label_smoothing = options.training.label_smoothing;
  } else {
    step.prompts_per_class = static_cast<std::int64_t>(texts.groups.front().size());
  }
  step.dropout_seed = options.data.seed;
  step.batch_size = std::min(options.training.batch_size, static_cast<std::int64_t>(data.train.size()));
  step.preprocessing = model.preprocessing;
  if (options.training.class_weights == "balanced") {
    const auto classes = static_cast<std::int64_t>(data.dataset.class_names.size());
    step.class_weights = train::balanced_class_weights(data.train, classes).to(clip->device());
  }
  return step;
}

void print_plan(const RunOptions& options, const RunData& data, std::int64_t iterations) {
  std::cout << "plan       " << with_commas(*options.epochs()) << " epochs of "
            << with_commas(std::ssize(data.train)) << (data.captions.empty() ? " images" : " pairs")
            << " in batches of " << options.training.batch_size << ": " << with_commas(iterations)
            << " iterations" << std::endl;
}

std::string in_memory(std::size_t kept, std::size_t images) {
  return with_commas(static_cast<std::int64_t>(kept)) + " of " +
         with_commas(static_cast<std::int64_t>(images)) + " training images stay in memory";
}

/// The training images' batches: cut out on the device where the decoded images fit there, else by the CPU.
class TrainingImages {
 public:
  /// skipped_batches: the first ones, which are not wanted.
  TrainingImages(const RunOptions& options, const RunData& data, const model::LoadedClip& model,
                 std::int64_t skipped_batches, const engine::ProcessGroup* processes) {
    const at::Device device = model.clip->device();
    data::TrainingLoaderOptions loader = loader_options(options, skipped_batches, processes);
    if (device.is_cuda()) {
      auto free = static_cast<std::uint64_t>(free_memory_bytes(device) / 2);
      if (options.compute.deterministic)  // what is to be left to activations is fixed
        free = std::min(free, static_cast<std::uint64_t>(total_memory_bytes(device)) / (2 * kFixedParts));
      draws_ = data::TrainingDraws::make(
          data.train, model.preprocessing,
          {.batch_size = loader.batch_size,
           .seed = loader.seed,
           .augmentation = loader.augmentation,
           .workers = loader.workers,
           .device = device,
           .store_bytes = loader.image_memory_bytes > 0 ? std::min(loader.image_memory_bytes, free) : free,
           .skipped_batches = skipped_batches,
           .process = loader.process,
           .processes = loader.processes});
    }
    if (draws_) return;
    if (processes != nullptr && loader.image_memory_bytes == 0) {
      const auto sharers = static_cast<std::uint64_t>(processes->local_size());  // of one machine's memory
      loader.image_memory_bytes = available_memory_bytes() / 2 / sharers;
    }
    loader_.emplace(data.train, model.preprocessing, loader);
    if (loader_->images_in_memory() == loader_->images()) return;
    const double gib = options.images.memory_gib;
    note_ = in_memory(loader_->images_in_memory(), loader_->images()) +
            (gib > 0.0 ? " (" + fixed(gib, 1) + " GiB)" : "") + ", the others are decoded at each draw";
  }

  train::NextBatch batches(const train::DrawTexts& texts) {
    return draws_ ? train::batches_of(*draws_, texts) : train::batches_of(*loader_, texts);
  }

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

/// One training of a run: what it tells the terminal and leaves in its folder.
class RunTraining {
 public:
  RunTraining(const RunOptions& options, const std::vector<data::Item>& images, const TrainingFiles& files,
              const TrainingHooks& hooks)
      : options_(options),
        images_(images),
        files_(files),
        hooks_(hooks),
        quiet_(options.compute.quiet),
        iterations_(options.iterations(std::ssize(images))),
        iteration_(files.resumed ? files.resumed->iteration : 0),
        images_before_(files.resumed ? files.resumed->images : 0),
        bar_("training", "iterations", iterations_, !quiet_) {
    report_.images = std::ssize(images);
    report_.iterations = iterations_;
    if (!files.folder.empty() && options.output.log_every > 0)
      log_.emplace(files.folder, iteration_, options.output.tensorboard);
  }

  TrainingReport run(engine::TrainingStep& step, const lora::Adapter& adapter,
                     const train::NextBatch& next_batch, model::Clip clip) {
    stopwatch_ = Stopwatch();
    try {
      report_.result = train::train(step, adapter, next_batch, clip, plan());
    } catch (const Interrupted&) {
      end_unfinished();
      throw;
    } catch (const train::Diverged&) {
      end_diverged();
      throw;
    } catch (const Error&) {
      end_unfinished();
      throw;
    } catch (const c10::Error&) {  // of a GPU's memory, for instance
      end_unfinished();
      throw;
    } catch (const std::bad_alloc&) {
      end_unfinished();
      throw;
    }
    bar_.clear();
    if (log_) {
      log_->keep();
    } else if (!files_.folder.empty()) {
      MetricsLog::remove(files_.folder);
    }
    report_.images_seen = report_.result.images;
    report_.loss = report_.result.loss;
    return report_;
  }

  std::string speed(std::int64_t images) const {
    return images_per_second(images - images_before_, stopwatch_.seconds() - report_.validation_seconds);
  }

 private:
  train::TrainingPlan plan() {
    train::TrainingPlan plan;
    plan.iterations = iterations_;
    plan.validation = {
        .every = options_.training.eval_every,
        .accuracy = [this] { return look(); },
        .scale = options_.eval_scales.front(),
        .select = options_.training.select == "best" ? train::Select::kBest : train::Select::kLast};
    plan.checkpoints = {.every = files_.folder.empty() ? 0 : options_.output.checkpoint_every,
                        .save = [this](const train::TrainingState& state) { save(state); },
                        .resumed = files_.resumed};
    plan.measuring = {.every = log_ ? options_.output.log_every : 0,
                      .images = report_.images,
                      .record = [this](const train::Measurement& measurement) { log_->add(measurement); }};
    plan.on_progress = [this](const train::Progress& progress) { show(progress); };
    plan.picture = [this](std::int64_t item) { return images_.at(static_cast<std::size_t>(item)).image; };
    plan.processes = hooks_.processes;
    return plan;
  }

  /// Unless a checkpoint keeps the training, its folder is as before.
  void end_unfinished() {
    bar_.clear();
    if (log_ && !checkpointed_iteration(files_.folder)) log_->put_back();
  }

  /// How it came to that can be seen, unless there are older results, which have their metrics back.
  void end_diverged() {
    std::error_code ignored;
    if (std::filesystem::exists(files_.folder / kResultsFile, ignored)) return end_unfinished();
    bar_.clear();
    if (log_) log_->keep();
  }

  void show(const train::Progress& progress) {
    iteration_ = progress.iteration;
    if (hooks_.on_iteration) hooks_.on_iteration(iteration_);
    bar_.update(iteration_, [&] {
      return "loss " + fixed(progress.loss(), 3) + "  lr " + scientific(progress.learning_rate) + "  " +
             speed(progress.images);
    });
  }

  double look() {
    const Stopwatch looking;
    const double accuracy = hooks_.validation_accuracy();
    report_.validation_seconds += looking.seconds();
    bar_.clear();
    if (!quiet_) {
      std::cout << "validation " << percent(accuracy) << "   after " << with_commas(iteration_) << " of "
                << with_commas(iterations_) << " iterations" << std::endl;
    }
    if (log_) log_->add_validation(iteration_, accuracy);
    return accuracy;
  }

  void save(const train::TrainingState& state) {
    if (hooks_.before_saving) hooks_.before_saving();
    try {
      train::write_checkpoint(files_.checkpoint(), {state, files_.settings});
      cannot_save_ = false;
    } catch (const ConfigError& error) {  // the training is worth more; the checkpoint before stays
      bar_.clear();
      if (!cannot_save_) {
        log_warning("no checkpoint after iteration " + std::to_string(state.iteration) +
                    ", nor after later ones unless that is mended: " + error.what());
      }
      cannot_save_ = true;
    }
  }

  const RunOptions& options_;
  const std::vector<data::Item>& images_;
  const TrainingFiles& files_;
  const TrainingHooks& hooks_;
  bool quiet_;
  std::int64_t iterations_;
  std::int64_t iteration_;      // finished ones
  std::int64_t images_before_;  // seen before this process began
  ProgressBar bar_;
  Stopwatch stopwatch_;
  std::optional<MetricsLog> log_;
  bool cannot_save_ = false;  // a checkpoint; said already
  TrainingReport report_;
};

}  // namespace

TrainingTexts class_texts(text::ClassPrompts prompts, const std::vector<data::Item>& items) {
  TrainingTexts texts = {std::move(prompts)};
  for (const auto& item : items) texts.group_of_item.push_back(item.label);
  return texts;
}

TrainingTexts caption_texts(const std::vector<std::string>& captions) {
  TrainingTexts texts = {.overlong = text::Overlong::kTruncate};
  for (const auto& caption : captions) {
    texts.group_of_item.push_back(std::ssize(texts.groups));
    texts.groups.push_back({caption});
  }
  return texts;
}

TrainingReport train_adapter(const RunOptions& options, const RunData& data, const model::LoadedClip& model,
                             const lora::Adapter& adapter, const text::Tokenizer& tokenizer,
                             const TrainingTexts& texts, const TrainingFiles& files,
                             const TrainingHooks& hooks) {
  const bool quiet = options.compute.quiet;
  const Stopwatch whole;
  const auto image_count = static_cast<std::int64_t>(data.train.size());
  const std::int64_t iterations = options.iterations(image_count);
  log_detail(with_commas(adapter.parameter_count()) + " trainable parameters in " +
             std::to_string(adapter.places().size()) + " blocks");
  if (options.epochs() && !quiet) print_plan(options, data, iterations);
  if (hooks.processes != nullptr && !quiet) {
    std::cout << "processes  " << hooks.processes->size() << ", which share out each batch" << std::endl;
  }
  if (files.resumed && !quiet) {
    std::cout << "resumed    after " << with_commas(files.resumed->iteration) << " of "
              << with_commas(iterations) << " iterations" << std::endl;
  }

  TrainingImages images(options, data, model, files.resumed ? files.resumed->iteration : 0, hooks.processes);
  if (hooks.processes != nullptr) hooks.processes->barrier();  // the first one has evaluated before
  if (!images.note().empty() && !quiet) std::cout << "images     " << images.note() << std::endl;
  const std::int64_t context_length = model.clip->architecture().context_length;
  model::Prompts prompts;
  train::DrawTexts texts_of_pairs;
  if (options.training.takes_pairs()) {
    texts_of_pairs = train::draw_texts(tokenizer, texts.groups, texts.group_of_item, context_length,
                                       static_cast<std::uint64_t>(options.data.seed), texts.overlong);
  } else {
    prompts = train::tokenize_prompts(tokenizer, texts.groups, context_length);
  }
  auto step_settings = step_options(options, data, texts, model, iterations);
  images.describe(step_settings);
  step_settings.processes = hooks.processes;
  step_settings.memory_bytes =
      activation_bytes(model.clip->device(), options.compute.deterministic, hooks.processes);
  engine::TrainingStep step(model.clip, adapter, prompts, step_settings);
  if (const std::string parts = step.parts(); !parts.empty() && !quiet) {
    std::cout << "memory     activations do not fit: " << parts << ", computed twice" << std::endl;
  }

  RunTraining training(options, data.train, files, hooks);
  const train::NextBatch next_batch = images.batches(texts_of_pairs);
  TrainingReport report = training.run(step, adapter, next_batch, model.clip);
  if (quiet) return report;
  std::cout << "training   " << with_commas(report.iterations) << " iterations   loss "
            << fixed(report.loss, 3) << "   " << training.speed(report.images_seen) << "   "
            << duration(whole.seconds()) << std::endl;
  if (options.training.select == "best") {
    std::cout << "selected   the adapter after " << with_commas(report.result.selected_iteration)
              << " iterations" << std::endl;
  }
  return report;
}

}  // namespace clip_lora::cli
