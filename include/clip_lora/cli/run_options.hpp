#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>

#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/engine/optimiser.hpp"
#include "clip_lora/lora/options.hpp"

namespace clip_lora::cli {

class OptionTable;

/// Which pictures.
struct DataOptions {
  std::string dataset;          ///< a name of data::dataset_names()
  std::string root_path = ".";  ///< the folder that holds the data sets' folders
  std::int64_t shots = 16;      ///< training images per class, at least 1
  std::int64_t seed = 1;        ///< of the few-shot sample and everything drawn in training

  void validate() const;
};

/// How long and on how much at a time.
struct TrainingOptions {
  std::int64_t iterations_per_shot = 500;  ///< iterations in all: this · shots
  std::int64_t batch_size = 32;            ///< images per iteration
  engine::OptimiserOptions optimiser;

  void validate() const;
};

/// Where adapters come from and results go.
struct OutputOptions {
  std::string adapter;    ///< what to start from or evaluate, in any format; empty: a fresh one
  std::string save_path;  ///< empty: results are printed only
  std::string filename = "lora_weights";  ///< of the adapter, without `.pt`
  bool eval_only = false;                 ///< evaluate `adapter`, or the saved one, instead of training

  void validate() const;
};

/// Where it is computed, and what is said meanwhile.
struct ComputeOptions {
  std::string device = "auto";     ///< see parse_device
  std::string precision = "auto";  ///< see parse_precision
  bool verbose = false;            ///< details on the standard error stream
  bool quiet = false;              ///< accuracies and errors only

  void validate() const;
};

/// Everything that `clip_lora --dataset …` can be told.
struct RunOptions {
  DataOptions data;
  ModelOptions model;
  lora::LoraOptions lora;
  TrainingOptions training;
  OutputOptions output;
  ComputeOptions compute;
  /// Names of the options that were written out: those of `lora` must agree with a loaded adapter.
  std::set<std::string> given;

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;

  std::int64_t iterations() const { return training.iterations_per_shot * data.shots; }
  /// `<save_path>/<backbone>/<dataset>/<shots>shots/seed<seed>`, the backbone lower-cased and without `/` and
  /// `-`.
  std::filesystem::path result_folder() const;
};

/// Binds every field to its flag and its JSON key.
void bind(OptionTable& table, RunOptions& options);

}  // namespace clip_lora::cli
