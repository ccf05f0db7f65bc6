#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "clip_lora/engine/optimiser.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/lora/options.hpp"

namespace clip_lora::cli {

class OptionTable;

/// The protocol that trains on one half of the classes and tests on either.
inline constexpr const char* kBaseToNew = "base_to_new";
/// The protocol that tests on the other benchmarks too.
inline constexpr const char* kCrossDataset = "cross_dataset";
/// The protocol that trains on ImageNet and tests on its shifts too.
inline constexpr const char* kRobustness = "robustness";
/// The protocol whose data are images with captions instead of classes.
inline constexpr const char* kRetrieval = "retrieval";

/// Which pictures.
struct DataOptions {
  std::string dataset;                     ///< a benchmark's name, or own data: a folder, a .csv or a .json
  std::string root_path = ".";             ///< the folder that holds the benchmarks' folders
  std::optional<std::int64_t> shots = 16;  ///< training images per class, at least 1; nothing: all of them
  std::int64_t seed = 1;                   ///< of the few-shot sample and everything drawn in training
  data::SplitOptions split;                ///< of own data that have no split
  std::string class_names;                 ///< file, own data only; empty: the data's own names
  bool allow_missing = false;              ///< go on without images that are not there
  bool skip_missing = false;  ///< leave out others of the protocol's data sets that are not there
  /// What is trained and tested on: "all" classes; kBaseToNew;
  /// kCrossDataset; kRobustness; or kRetrieval, where `dataset` is one of data::caption_benchmarks(), a .json
  /// or a .csv.
  std::string protocol = "all";

  /// Whether the protocol tests on data sets beside `dataset`.
  bool has_other_datasets() const { return protocol == kCrossDataset || protocol == kRobustness; }
  void validate() const;
};

/// What the classes are called in.
struct PromptOptions {
  std::vector<std::string> templates;     ///< empty: the adapter's, or text::kDefaultTemplate
  std::string templates_file;             ///< the same as a file, or "imagenet": OpenAI's 80
  std::string train_templates = "first";  ///< in training: "first", "all", or, of pairs, "random"
  std::string zero_shot_templates =
      "plain";  ///< "plain" (the run's), "dataset" (its customary ones) or a file

  void validate() const;
};

/// How pictures become the tower's input, and what that may take.
struct ImageOptions {
  std::string exif = "auto";  ///< "apply", "ignore", or "auto": the adapter's, or applied to own data only
  std::string resize_mode;    ///< see image::ResizeMode; empty: the adapter's or the checkpoint's
  double memory_gib = 0.0;    ///< of decoded training images; 0: what is free decides
  std::int64_t workers = 0;   ///< threads that decode; 0: one per hardware thread
  std::string cache_folder;   ///< of decoded evaluation views; empty: none

  void validate() const;
  int worker_count() const;  ///< workers, with 0 replaced
  /// Puts in what was asked for, and leaves the rest.
  void apply_to(image::Preprocessing& preprocessing) const;
};

/// How long and on how much at a time.
struct TrainingOptions {
  std::int64_t iterations_per_shot = 500;  ///< iterations in all: this · shots
  std::optional<std::int64_t> epochs;      ///< passes over the images instead; nothing: with all shots 20
  std::int64_t batch_size = 32;            ///< images per iteration
  engine::OptimiserOptions optimiser;
  std::string loss = "ce";       ///< "ce" over the classes' prompts, or "mpm_nce" over image–text pairs
  double margin = 0.0;           ///< of mpm_nce
  double label_smoothing = 0.0;  ///< of mpm_nce
  std::string augment = "clip_lora";   ///< see image::Augmentation
  std::string class_weights = "none";  ///< of the loss: "none" or "balanced"
  std::int64_t eval_every = 0;  ///< iterations between two looks at the validation images, which are sampled:
                                ///< min(shots, 4) per class, with all shots all; 0: none
  std::string select = "last";  ///< the adapter that is kept: "last", or "best" on those images

  bool takes_pairs() const;  ///< whether the loss is one of image–text pairs
  void validate() const;
};

/// Where adapters come from and results go.
struct OutputOptions {
  std::string adapter;    ///< what to start from or evaluate, in any format; empty: a fresh one
  std::string save_path;  ///< empty: results are printed only
  std::string variant;    ///< folder that tells runs of other settings apart; empty: none
  std::string filename = "lora_weights";  ///< of the adapter, without `.pt`
  bool eval_only = false;                 ///< evaluate `adapter`, or the saved one, instead of training
  bool save_predictions = false;      ///< what the adapted model says of each test image, as predictions.csv
  std::int64_t checkpoint_every = 0;  ///< iterations between two checkpoints of the training; 0: none
  bool resume = false;                ///< go on from the checkpoint, if there is one
  std::int64_t log_every = 10;        ///< iterations between two lines of metrics.jsonl; 0: no such file
  bool tensorboard = false;           ///< the same for TensorBoard

  void validate() const;
};

/// Where it is computed, and what is said meanwhile.
struct ComputeOptions {
  std::string device = "auto";     ///< see parse_device
  std::string precision = "auto";  ///< see parse_precision
  bool tf32 = false;               ///< products of fp32 on CUDA are rounded to TF32
  bool deterministic = false;      ///< the same bits on every machine with a CPU or GPU of the kind
  bool verbose = false;            ///< details on the standard error stream
  bool quiet = false;              ///< accuracies and errors only

  void validate() const;
};

/// Verbosity and signals as `options` and every command have them.
void set_up(const ComputeOptions& options);

/// Everything that `clip_lora --dataset …` can be told.
struct RunOptions {
  DataOptions data;
  PromptOptions prompts;
  ImageOptions images;
  ModelOptions model;
  lora::AdapterOptions adapter;
  std::vector<double> eval_scales = {1.0};  ///< the adapter is evaluated at; the first one is the result
  TrainingOptions training;
  OutputOptions output;
  ComputeOptions compute;
  /// Names of the options that were written out: they must have a part in the run, and those of `adapter`
  /// agree with a loaded adapter.
  std::set<std::string> given;

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;

  /// Passes over the training images, where they set the length; else nothing.
  std::optional<std::int64_t> epochs() const;
  /// Iterations in all on `training_images` images per epoch. Throws ConfigError for too many.
  std::int64_t iterations(std::int64_t training_images) const;
  /// `<save_path>/<backbone>/<dataset>/<shots>shots/seed<seed>` (all of them: `allshots`), with `<variant>/`
  /// before the seed if there is one, the backbone lower-cased and without `/` and `-`. `dataset`:
  /// data::Dataset::name.
  std::filesystem::path result_folder(const std::string& dataset) const;
};

/// Binds every field to its flag and its JSON key.
void bind(OptionTable& table, RunOptions& options);

}  // namespace clip_lora::cli
