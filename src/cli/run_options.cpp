#include "clip_lora/cli/run_options.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <sstream>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/ops/linear.hpp"
#include "clip_lora/text/prompts.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::int64_t kMostIterations = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kDefaultEpochs = 20;
constexpr std::int64_t kLargestBatch = 1 << 20;
constexpr std::int64_t kMostWorkers = 4096;
constexpr double kMostGib = 1 << 20;
constexpr std::size_t kAllNames = 100;  // more than there are benchmarks
const std::string kAllShots = "all";

template <typename T>
void require(bool valid, const std::string& flag, const T& got, const std::string& expected) {
  if (valid) return;
  std::ostringstream message;
  message << flag << " " << got << ": expected " << expected;
  throw ConfigError(message.str());
}

}  // namespace

void DataOptions::validate() const {
  if (dataset.empty()) {
    throw ConfigError("--dataset is missing: expected a folder, a .csv, a .json, or one of " +
                      join_capped(data::benchmark_names(), kAllNames) + " (hint: clip_lora --help)");
  }
  require(!shots || *shots >= 1, "--shots", shots.value_or(0), "at least 1, or 'all'");
  split.validate();
  if (data::find_benchmark(dataset) == nullptr) return;
  const auto refuse = [&](const std::string& flag, const std::string& own) {
    throw ConfigError(flag + ": '" + dataset + "' has " + own +
                      " of its own (hint: the flag is for own data; a folder of this name is './" + dataset +
                      "')");
  };
  if (!class_names.empty()) refuse("--class_names", "class names");
  const data::SplitOptions defaults;
  if (split.test_fraction != defaults.test_fraction) refuse("--test_fraction", "a split");
  if (split.val_fraction != defaults.val_fraction) refuse("--val_fraction", "a split");
  if (split.seed != defaults.seed) refuse("--split_seed", "a split");
}

void PromptOptions::validate() const {
  if (!templates.empty() && !templates_file.empty())
    throw ConfigError("--template and --templates exclude each other");
  for (const auto& prompt_template : templates)
    text::fill_template(prompt_template, "");  // throws without {}
  require_one_of("--train_templates", train_templates, {"first", "all"});
}

void ImageOptions::validate() const {
  require_one_of("--exif", exif, {"auto", "apply", "ignore"});
  if (!resize_mode.empty()) require_one_of("--resize_mode", resize_mode, {"shortest", "longest", "squash"});
  require(memory_gib >= 0.0 && memory_gib <= kMostGib, "--image_memory", memory_gib,
          "GiB, at least 0 (0: half of what is free)");
  require(workers >= 0 && workers <= kMostWorkers, "--workers", workers,
          "0 (all cores) to " + std::to_string(kMostWorkers));
}

int ImageOptions::worker_count() const {
  return workers == 0 ? hardware_workers() : static_cast<int>(workers);
}

void ImageOptions::apply_to(image::Preprocessing& preprocessing) const {
  if (exif == "apply") preprocessing.orientation = image::Orientation::kApplyExif;
  if (exif == "ignore") preprocessing.orientation = image::Orientation::kIgnoreExif;
  if (!resize_mode.empty()) preprocessing.resize_mode = image::parse_resize_mode(resize_mode);
}

void TrainingOptions::validate() const {
  require(iterations_per_shot >= 1, "--n_iters", iterations_per_shot, "at least 1");
  require(!epochs || *epochs >= 1, "--epochs", epochs.value_or(0), "at least 1");
  require(batch_size >= 1, "--batch_size", batch_size, "at least 1");
  require(batch_size <= kLargestBatch, "--batch_size", batch_size,
          "at most " + std::to_string(kLargestBatch));
  require(optimiser.learning_rate > 0.0 && std::isfinite(optimiser.learning_rate), "--lr",
          optimiser.learning_rate, "a number above 0");
  require_one_of("--class_weights", class_weights, {"none", "balanced"});
  require(eval_every >= 0, "--eval_every", eval_every, "at least 0 (0: never)");
  require_one_of("--select", select, {"last", "best"});
  if (select == "best" && eval_every == 0) {
    throw ConfigError(
        "--select best needs --eval_every N: the validation images decide, and have to be looked at");
  }
}

void OutputOptions::validate() const {
  require(variant != "." && variant != ".." && variant.find('/') == std::string::npos, "--variant",
          "'" + variant + "'", "the name of a folder, without folders above it");
  require(!filename.empty() && filename.find('/') == std::string::npos, "--filename", "'" + filename + "'",
          "a file name without folders");
  if (eval_only && save_path.empty() && adapter.empty()) {
    throw ConfigError(
        "--eval_only needs --adapter, or --save_path, the folder that the adapter was saved under");
  }
  if (save_predictions && save_path.empty())
    throw ConfigError("--save_predictions needs --save_path, the folder to save under");
  require(checkpoint_every >= 0, "--checkpoint_every", checkpoint_every, "at least 0 (0: none)");
  require(log_every >= 0, "--log_every", log_every, "at least 0 (0: never)");
  if (checkpoint_every > 0 && save_path.empty())
    throw ConfigError("--checkpoint_every needs --save_path, the folder to save under");
  if (resume && save_path.empty())
    throw ConfigError("--resume needs --save_path, the folder that the training was checkpointed under");
  if (resume && eval_only) throw ConfigError("--resume and --eval_only exclude each other");
  if (tensorboard && save_path.empty())
    throw ConfigError("--tensorboard needs --save_path, the folder to save under");
  if (tensorboard && log_every == 0)
    throw ConfigError("--tensorboard needs --log_every above 0, iterations between two points");
}

void ComputeOptions::validate() const {
  if (verbose && quiet) throw ConfigError("--verbose and --quiet exclude each other");
}

void set_up(const ComputeOptions& options) {
  if (options.verbose) set_verbosity(Verbosity::kVerbose);
  if (options.quiet) set_verbosity(Verbosity::kQuiet);
  ops::allow_tf32(options.tf32);
  catch_interrupts();
}

void RunOptions::validate() const {
  data.validate();
  prompts.validate();
  images.validate();
  model.validate();
  lora.validate();
  training.validate();
  output.validate();
  compute.validate();
  if (prompts.zero_shot_templates == "dataset" && data::find_benchmark(data.dataset) == nullptr) {
    throw ConfigError(
        "--zero_shot_templates dataset: own data have no customary templates (hint: give a file)");
  }
  if (data.shots) {
    if (training.epochs) {
      throw ConfigError("--epochs " + std::to_string(*training.epochs) +
                        " is for --shots all; otherwise --n_iters, iterations per shot, sets the length");
    }
    require(*data.shots <= kMostIterations / training.iterations_per_shot, "--shots", *data.shots,
            "at most " + std::to_string(kMostIterations) + " iterations (shots times --n_iters)");
  } else {
    require(training.iterations_per_shot == TrainingOptions{}.iterations_per_shot, "--n_iters",
            training.iterations_per_shot,
            "nothing of the kind with --shots all, where --epochs sets the length");
  }
}

std::int64_t RunOptions::epochs() const { return training.epochs.value_or(kDefaultEpochs); }

std::int64_t RunOptions::iterations(std::int64_t training_images) const {
  if (data.shots) return training.iterations_per_shot * *data.shots;
  const std::int64_t per_epoch =
      training_images / training.batch_size + (training_images % training.batch_size != 0);
  require(epochs() <= kMostIterations / std::max<std::int64_t>(1, per_epoch), "--epochs", epochs(),
          "at most " + std::to_string(kMostIterations) + " iterations, " + std::to_string(per_epoch) +
              " per epoch");
  return epochs() * per_epoch;
}

std::filesystem::path RunOptions::result_folder(const std::string& dataset) const {
  std::string backbone;
  for (const char character : model.backbone) {
    if (character != '/' && character != '-') {
      backbone += static_cast<char>(std::tolower(static_cast<unsigned char>(character)));
    }
  }
  const std::string shots = data.shots ? std::to_string(*data.shots) : kAllShots;
  return std::filesystem::path(output.save_path) / backbone / dataset / (shots + "shots") / output.variant /
         ("seed" + std::to_string(data.seed));
}

void bind(OptionTable& table, RunOptions& options) {
  table.group("Data");
  table.add("dataset", options.data.dataset,
            join_capped(data::benchmark_names(), kAllNames) +
                "; or data of your own: a folder of class folders, " +
                "with or without train, val and test above them, a .csv (path, label, split), or a CoOp "
                "split .json");
  table.add("root_path", options.data.root_path, "folder that holds the benchmarks' folders");
  table.add("shots", options.data.shots, kAllShots, "training images per class, or all there are");
  table.add("seed", options.data.seed, "seed of the few-shot sample and of training");
  table.add("test_fraction", options.data.split.test_fraction,
            "share of the test split, of own data without one");
  table.add("val_fraction", options.data.split.val_fraction, "share of the validation split, of the same");
  table.add("split_seed", options.data.split.seed, "seed of such a split");
  table.add("class_names", options.data.class_names,
            "file of class names for own data: JSON, or lines of names or of 'folder: name'");
  table.add("allow_missing", options.data.allow_missing, "go on without images that are not there");

  table.group("Prompts");
  PromptOptions& prompts = options.prompts;
  table.add_repeated(
      "template", prompts.templates,
      "prompt, with {} for the class name; given several times, all are averaged; unset, the adapter's, "
      "or 'a photo of a {}.'");
  table.add("templates", prompts.templates_file, "file of templates: a JSON array, or one per line");
  table.add("train_templates", prompts.train_templates, "templates used in training: first or all");
  table.add("zero_shot_templates", prompts.zero_shot_templates,
            "of the zero-shot line: plain (the same), dataset (the benchmark's customary ones), or a file of "
            "templates or of descriptions per class");

  table.group("Images");
  table.add("exif", options.images.exif,
            "turn photos by their EXIF orientation: auto (the adapter's, or own data only), apply, ignore");
  table.add(
      "resize_mode", options.images.resize_mode,
      "shortest (then cropped), longest (then padded) or squash; unset, the adapter's or the checkpoint's");
  table.add("image_memory", options.images.memory_gib,
            "GiB of decoded training images to keep in memory; 0: half of what is free");
  table.add("workers", options.images.workers, "threads that decode images; 0: all cores");
  table.add("cache_dir", options.images.cache_folder,
            "folder that keeps decoded evaluation images for later runs");

  table.group("Model");
  bind(table, options.model);

  table.group("LoRA");
  lora::LoraOptions& lora = options.lora;
  table.add(
      "encoder", [&lora](const auto& words) { lora.encoder = lora::parse_encoder(words.front()); },
      [&lora] { return std::vector{lora::to_string(lora.encoder)}; }, false,
      "towers to adapt: both, text, vision");
  table.add(
      "position", [&lora](const auto& words) { lora.position = lora::parse_position(words.front()); },
      [&lora] { return std::vector{lora::to_string(lora.position)}; }, false,
      "blocks to adapt: all, bottom, mid, up, half-up, half-bottom, top3");
  table.add(
      "params", [&lora](const auto& words) { lora.projections = lora::parse_projections(words); },
      [&lora] { return lora::projection_names(lora.projections); }, true,
      "projections to adapt: any of q k v o");
  table.add("r", lora.rank, "rank of A and B");
  table.add("alpha", lora.alpha, "the update is scaled by alpha / sqrt(r)");
  table.add("dropout_rate", lora.dropout, "dropout on the adapters' input, [0, 1)");

  table.group("Training");
  table.add("lr", options.training.optimiser.learning_rate, "learning rate of AdamW, cosine to 1e-6");
  table.add("n_iters", options.training.iterations_per_shot, "iterations per shot: n_iters * shots in all");
  table.add("epochs", options.training.epochs, "auto",
            "with --shots all, instead of --n_iters: passes over the training images; auto: " +
                std::to_string(kDefaultEpochs));
  table.add("batch_size", options.training.batch_size, "images per iteration");
  table.add("class_weights", options.training.class_weights,
            "of the loss: none, or balanced (rare classes count more)");
  table.add("eval_every", options.training.eval_every,
            "iterations between two looks at the sampled validation images, min(shots, 4) per class (with "
            "--shots all: all of them); 0: none");
  table.add("select", options.training.select,
            "adapter that is kept: last, or best on these validation images");

  table.group("Results");
  table.add(
      "adapter", options.output.adapter,
      "adapter to go on from, or with --eval_only to evaluate: the authors' .pt, a PEFT folder, or ours");
  table.add("save_path", options.output.save_path,
            "folder for adapter and results; without it they are printed only");
  table.add("variant", options.output.variant,
            "folder between that of the shots and that of the seed, for runs of other settings");
  table.add("filename", options.output.filename, "name of the adapter's file, .pt is added");
  table.add("eval_only", options.output.eval_only, "evaluate the saved adapter instead of training one");
  table.add("save_predictions", options.output.save_predictions,
            "also save predictions.csv: what the adapted model says of each test image");
  table.add("checkpoint_every", options.output.checkpoint_every,
            "iterations between two checkpoints of the training, and one when a signal stops it; 0: none");
  table.add("resume", options.output.resume,
            "go on from the training's checkpoint if there is one, to the same adapter as without a pause");
  table.add("log_every", options.output.log_every,
            "iterations between two lines of metrics.jsonl, beside the adapter; 0: none");
  table.add("tensorboard", options.output.tensorboard, "also write them to tensorboard/, for TensorBoard");

  table.group("Computing");
  table.add("device", options.compute.device, "auto, cpu, cuda or cuda:N");
  table.add("precision", options.compute.precision,
            "auto (fp16 on CUDA, fp32 on the CPU), fp32, fp16 or bf16");
  table.add("tf32", options.compute.tf32, "let products of fp32 on CUDA be rounded to TF32");
  table.add("verbose", options.compute.verbose, "say more");
  table.add("quiet", options.compute.quiet, "print accuracies and errors only");
}

}  // namespace clip_lora::cli
