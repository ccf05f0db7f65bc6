#include "clip_lora/cli/run_options.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <sstream>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/captions.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/ops/linear.hpp"
#include "clip_lora/text/prompts.hpp"
#include "flag_parts.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::int64_t kMostIterations = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kDefaultEpochs = 20;
constexpr std::int64_t kLargestBatch = 1 << 20;
constexpr std::int64_t kMostWorkers = 4096;
constexpr double kMostGib = 1 << 20;
constexpr std::size_t kAllNames = 100;  // more than there are benchmarks
const std::string kAllImages = "all";

template <typename T>
void require(bool valid, const std::string& flag, const T& got, const std::string& expected) {
  if (valid) return;
  std::ostringstream message;
  message << flag << " " << got << ": expected " << expected;
  throw ConfigError(message.str());
}

void validate_optimiser(const engine::OptimiserOptions& optimiser) {
  const auto number = [](bool valid, const std::string& flag, double got, const std::string& expected) {
    require(valid && std::isfinite(got), flag, got, expected);
  };
  number(optimiser.final_learning_rate >= 0.0 &&
             optimiser.final_learning_rate <= std::max(optimiser.learning_rate, 1e-6),
         "--min_lr", optimiser.final_learning_rate, "at least 0, and at most --lr");
  number(optimiser.weight_decay >= 0.0, "--weight_decay", optimiser.weight_decay, "at least 0");
  number(optimiser.largest_gradient_norm >= 0.0, "--grad_clip", optimiser.largest_gradient_norm,
         "at least 0 (0: gradients are not clipped)");
  number(optimiser.average_decay >= 0.0 && optimiser.average_decay < 1.0, "--ema", optimiser.average_decay,
         "at least 0 and below 1 (0: no average)");
  require(optimiser.warmup_iterations >= 0, "--warmup", optimiser.warmup_iterations, "at least 0");
}

/// What the method and the protocol have other defaults for, as far as they go together with what was given.
/// Those of retrieval are R-Adapter's on COCO; a method that does not average or re-scale does not do so
/// there either.
nlohmann::json further_defaults(const RunOptions& options, const std::set<std::string>& given) {
  nlohmann::json defaults = lora::find_method(options.adapter.method).defaults;
  if (options.data.protocol == kRetrieval) {
    for (const char* of_classes : {"templates", "train_templates"}) defaults.erase(of_classes);
    if (defaults.contains("ema")) defaults["ema"] = 0.999;
    if (defaults.contains("eval_scale")) defaults["eval_scale"] = nlohmann::json::array({0.8});
    defaults.update({{"loss", "mpm_nce"},
                     {"margin", 0.05},
                     {"augment", "open_clip"},
                     {"shots", kAllImages},
                     {"epochs", 10}});
    return defaults;
  }
  if (given.contains("template")) defaults.erase("templates");
  if (given.contains("n_iters")) defaults.erase("epochs");
  if (given.contains("loss") && !options.training.takes_pairs()) {
    for (const char* of_pairs : {"margin", "label_smoothing", "train_templates"}) defaults.erase(of_pairs);
  }
  return defaults;
}

/// Throws ConfigError if the training would need classes.
void require_pairs(const RunOptions& options) {
  if (options.data.shots) {
    throw ConfigError("--shots " + std::to_string(*options.data.shots) +
                      " is not for --protocol retrieval: training is on all pairs (hint: leave it out)");
  }
  if (!options.training.takes_pairs())
    throw ConfigError("--loss " + options.training.loss +
                      " is not for --protocol retrieval: captions have no classes (hint: --loss mpm_nce)");
}

/// Throws ConfigError for what was written out and would be ignored.
void require_part(const RunOptions& options) {
  for (const auto& [flag, why] : flags_without_part(options)) {
    if (options.given.contains(flag)) throw ConfigError("--" + flag + " " + why);
  }
}

std::vector<std::string> caption_names() {
  std::vector<std::string> names;
  for (const auto& benchmark : data::caption_benchmarks()) names.push_back(benchmark.name);
  return names;
}

}  // namespace

void DataOptions::validate() const {
  require_one_of("--protocol", protocol, {"all", kBaseToNew, kCrossDataset, kRobustness, kRetrieval});
  if (dataset.empty() && protocol == kRetrieval) {
    throw ConfigError("--dataset is missing: expected a .json or .csv of captions, or one of " +
                      join_capped(caption_names()) + " (hint: clip_lora --help)");
  }
  if (dataset.empty()) {
    throw ConfigError("--dataset is missing: expected a folder, a .csv, a .json, or one of " +
                      join_capped(data::benchmark_names(), kAllNames) + " (hint: clip_lora --help)");
  }
  const data::Benchmark* const benchmark = data::find_benchmark(dataset);
  if (protocol == kRobustness && (benchmark == nullptr || benchmark->name != "imagenet")) {
    throw ConfigError(
        "--protocol robustness tests on shifts of ImageNet, by its classes: expected --dataset "
        "imagenet, got '" +
        dataset + "'");
  }
  require(!shots || *shots >= 1, "--shots", shots.value_or(0), "at least 1, or 'all'");
  split.validate();
  const bool is_own =
      protocol == kRetrieval ? data::find_caption_benchmark(dataset) == nullptr : benchmark == nullptr;
  if (is_own) return;
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
  require_one_of("--train_templates", train_templates, {"first", "all", "random"});
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
  validate_optimiser(optimiser);
  require_one_of("--loss", loss, loss_names());
  require(margin >= 0.0 && std::isfinite(margin), "--margin", margin, "at least 0");
  require(label_smoothing >= 0.0 && label_smoothing < 1.0, "--label_smoothing", label_smoothing,
          "at least 0 and below 1");
  image::parse_augmentation(augment);
  require(batch_size >= 2 || !takes_pairs(), "--batch_size", batch_size,
          "at least 2 with --loss mpm_nce, which compares pairs");
  require_one_of("--class_weights", class_weights, {"none", "balanced"});
  require(eval_every >= 0, "--eval_every", eval_every, "at least 0 (0: never)");
  require_one_of("--select", select, {"last", "best"});
  if (select == "best" && eval_every == 0) {
    throw ConfigError(
        "--select best needs --eval_every N: the validation images decide, and have to be looked at");
  }
}

bool TrainingOptions::takes_pairs() const { return loss == "mpm_nce"; }

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
  be_deterministic(options.deterministic);
  catch_interrupts();
}

void RunOptions::validate() const {
  data.validate();
  require_part(*this);
  if (data.protocol == kRetrieval) require_pairs(*this);
  prompts.validate();
  images.validate();
  model.validate();
  lora::find_method(adapter.method);
  adapter.validate();
  if (eval_scales.empty()) throw ConfigError("--eval_scale is empty: expected numbers from 0 to 2");
  for (const double scale : eval_scales)
    require(scale >= 0.0 && scale <= 2.0, "--eval_scale", scale, "0 to 2");
  training.validate();
  output.validate();
  compute.validate();
  if (prompts.zero_shot_templates == "dataset" && data::find_benchmark(data.dataset) == nullptr) {
    throw ConfigError(
        "--zero_shot_templates dataset: own data have no customary templates (hint: give a file)");
  }
  if (training.takes_pairs() && prompts.train_templates == "all")
    throw ConfigError("--train_templates all is for --loss ce: a pair has one text (hint: random)");
  if (!training.takes_pairs() && prompts.train_templates == "random")
    throw ConfigError(
        "--train_templates random is for --loss mpm_nce: cross-entropy uses the same each time");
  if (data.shots) {
    if (training.epochs && training.iterations_per_shot != TrainingOptions{}.iterations_per_shot) {
      throw ConfigError("--epochs and --n_iters exclude each other: both set the length");
    }
    require(*data.shots <= kMostIterations / training.iterations_per_shot, "--shots", *data.shots,
            "at most " + std::to_string(kMostIterations) + " iterations (shots times --n_iters)");
  } else {
    require(training.iterations_per_shot == TrainingOptions{}.iterations_per_shot, "--n_iters",
            training.iterations_per_shot,
            "nothing of the kind with --shots all, where --epochs sets the length");
  }
}

std::optional<std::int64_t> RunOptions::epochs() const {
  if (training.epochs || data.shots) return training.epochs;
  return kDefaultEpochs;
}

std::int64_t RunOptions::iterations(std::int64_t training_images) const {
  if (!epochs()) return training.iterations_per_shot * *data.shots;
  const std::int64_t per_epoch =
      training_images / training.batch_size + (training_images % training.batch_size != 0);
  require(*epochs() <= kMostIterations / std::max<std::int64_t>(1, per_epoch), "--epochs", *epochs(),
          "at most " + std::to_string(kMostIterations) + " iterations, " + std::to_string(per_epoch) +
              " per epoch");
  return *epochs() * per_epoch;
}

std::filesystem::path RunOptions::result_folder(const std::string& dataset) const {
  std::string backbone;
  for (const char character : model.backbone) {
    if (character != '/' && character != '-') {
      backbone += static_cast<char>(std::tolower(static_cast<unsigned char>(character)));
    }
  }
  const std::string shots = data.shots ? std::to_string(*data.shots) : kAllImages;
  return std::filesystem::path(output.save_path) / backbone / dataset / (shots + "shots") / output.variant /
         ("seed" + std::to_string(data.seed));
}

void bind(OptionTable& table, RunOptions& options) {
  table.group("Data");
  table.add(
      "dataset", options.data.dataset,
      join_capped(data::benchmark_names(), kAllNames) + "; or data of your own: a folder of class folders, " +
          "with or without train, val and test above them, a .csv (path, label, split), or a CoOp "
          "split .json; with --protocol retrieval " +
          join_capped(caption_names()) + ", a .json of Karpathy's format, or a .csv (image, caption, split)");
  table.add("root_path", options.data.root_path, "folder that holds the benchmarks' folders");
  table.add("shots", options.data.shots, kAllImages, "training images per class, or all there are");
  table.add("seed", options.data.seed, "seed of the few-shot sample and of training");
  table.add("test_fraction", options.data.split.test_fraction,
            "share of the test split, of own data without one");
  table.add("val_fraction", options.data.split.val_fraction, "share of the validation split, of the same");
  table.add("split_seed", options.data.split.seed, "seed of such a split");
  table.add("class_names", options.data.class_names,
            "file of class names for own data: JSON, or lines of names or of 'folder: name'");
  table.add("allow_missing", options.data.allow_missing, "go on without images that are not there");
  table.add(
      "protocol", options.data.protocol,
      "all (classes); base_to_new: trained on the first half of the classes, tested on either half; "
      "cross_dataset: tested on the other benchmarks too, by the prompts that are customary for each; "
      "robustness: trained on ImageNet, tested on its five shifts too; or retrieval: images and captions "
      "find each other");
  table.add("skip_missing", options.data.skip_missing,
            "of cross_dataset and robustness: leave out data sets to test on whose folder or all of whose "
            "images are missing");

  table.group("Prompts");
  PromptOptions& prompts = options.prompts;
  table.add_repeated(
      "template", prompts.templates,
      "prompt, with {} for the class name; given several times, all are averaged; unset, the adapter's, "
      "or 'a photo of a {}.'");
  table.add("templates", prompts.templates_file,
            "file of templates, a JSON array or one per line; or imagenet: OpenAI's 80");
  table.add("train_templates", prompts.train_templates,
            "templates used in training: first or all; random: of pairs (--loss mpm_nce), one each time");
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

  table.group("Adapter");
  std::string methods;
  for (const auto& method : lora::methods()) {
    methods += (methods.empty() ? "" : "; ") + method.name + ": " + method.summary;
  }
  table.add("method", options.adapter.method, methods);
  table.set_further_defaults([&options](const auto& given) { return further_defaults(options, given); });
  table.set_without_part([&options] {
    std::set<std::string> flags;
    for (const auto& [flag, why] : flags_without_part(options)) flags.insert(flag);
    return flags;
  });
  lora::LoraOptions& lora = options.adapter.lora;
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
  lora::RAdapterOptions& r_adapter = options.adapter.r_adapter;
  table.add("adapter_rank", r_adapter.rank, "R-Adapter's rank; 0: full");
  table.add("adapter_init_scale", r_adapter.initial_scale, "R-Adapter's scale s at the start");
  table.add("adapter_drop", r_adapter.drop,
            "probability with which R-Adapter is dropped in training, [0, 1)");
  table.add(
      "adapter_drop_unit",
      [&r_adapter](const auto& words) { r_adapter.drop_unit = lora::parse_drop_unit(words.front()); },
      [&r_adapter] { return std::vector{lora::to_string(r_adapter.drop_unit)}; }, false,
      "what is dropped at once: position (of all samples alike), sample, module");
  table.add_numbers(
      "eval_scale", options.eval_scales,
      "factors on the adapter in evaluation, 0 to 2; the first is the result, all are evaluated");

  table.group("Training");
  engine::OptimiserOptions& optimiser = options.training.optimiser;
  table.add("lr", optimiser.learning_rate, "learning rate of AdamW, by half a cosine to --min_lr");
  table.add("min_lr", optimiser.final_learning_rate, "learning rate in the end");
  table.add("warmup", optimiser.warmup_iterations, "iterations in which the learning rate grows to --lr");
  table.add("weight_decay", optimiser.weight_decay, "weight decay of AdamW");
  table.add("grad_clip", optimiser.largest_gradient_norm,
            "norm that gradients are shortened to; 0: they are not");
  table.add("ema", optimiser.average_decay,
            "m of the adapter's exponential moving average, which is what is kept, [0, 1); 0: none");
  table.add("loss", options.training.loss,
            "ce: cross-entropy over the classes; mpm_nce: multi-positive margin NCE over image-text pairs");
  table.add("margin", options.training.margin, "margin of mpm_nce, in cosines");
  table.add("label_smoothing", options.training.label_smoothing, "label smoothing of mpm_nce, [0, 1)");
  table.add(
      "augment", options.training.augment,
      "clip_lora: crops from 8 % of the picture on, flipped at random; open_clip: from 90 %, not flipped");
  table.add("n_iters", options.training.iterations_per_shot, "iterations per shot: n_iters * shots in all");
  table.add("epochs", options.training.epochs, "auto",
            "instead of --n_iters: passes over the training images; auto: with --shots all " +
                std::to_string(kDefaultEpochs));
  table.add("batch_size", options.training.batch_size, "images per iteration, of all processes together");
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
  table.add(
      "filename", options.output.filename,
      "name of the adapter's file; .pt is added, or .safetensors where the authors' format will not do");
  table.add("eval_only", options.output.eval_only, "evaluate the saved adapter instead of training one");
  table.add("save_predictions", options.output.save_predictions,
            "also save predictions.csv: what the adapted model says of each test image of --dataset");
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
  table.add("deterministic", options.compute.deterministic,
            "the same adapter, bit for bit, whatever the number of CPU threads and what is free of a GPU's "
            "memory; on the CPU it computes with one thread");
  table.add("verbose", options.compute.verbose, "say more");
  table.add("quiet", options.compute.quiet, "print accuracies and errors only");
}

}  // namespace clip_lora::cli
