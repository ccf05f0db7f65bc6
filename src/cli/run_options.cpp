#include "clip_lora/cli/run_options.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <limits>
#include <sstream>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/dataset.hpp"

namespace clip_lora::cli {
namespace {

constexpr std::int64_t kMostIterations = std::numeric_limits<std::int32_t>::max();

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
    throw ConfigError("--dataset is missing: expected one of " + join_capped(data::dataset_names()) +
                      " (hint: clip_lora --help)");
  }
  require(shots >= 1, "--shots", shots, "at least 1");
}

void TrainingOptions::validate() const {
  require(iterations_per_shot >= 1, "--n_iters", iterations_per_shot, "at least 1");
  require(batch_size >= 1, "--batch_size", batch_size, "at least 1");
  require(optimiser.learning_rate > 0.0 && std::isfinite(optimiser.learning_rate), "--lr",
          optimiser.learning_rate, "a number above 0");
}

void OutputOptions::validate() const {
  require(!filename.empty() && filename.find('/') == std::string::npos, "--filename", "'" + filename + "'",
          "a file name without folders");
  if (eval_only && save_path.empty() && adapter.empty()) {
    throw ConfigError(
        "--eval_only needs --adapter, or --save_path, the folder that the adapter was saved under");
  }
}

void ComputeOptions::validate() const {
  if (verbose && quiet) throw ConfigError("--verbose and --quiet exclude each other");
}

void RunOptions::validate() const {
  data.validate();
  model.validate();
  lora.validate();
  training.validate();
  output.validate();
  compute.validate();
  require(data.shots <= kMostIterations / training.iterations_per_shot, "--shots", data.shots,
          "at most " + std::to_string(kMostIterations) + " iterations (shots times --n_iters)");
}

std::filesystem::path RunOptions::result_folder() const {
  std::string backbone;
  for (const char character : model.backbone) {
    if (character != '/' && character != '-') {
      backbone += static_cast<char>(std::tolower(static_cast<unsigned char>(character)));
    }
  }
  return std::filesystem::path(output.save_path) / backbone / data.dataset /
         (std::to_string(data.shots) + "shots") / ("seed" + std::to_string(data.seed));
}

void bind(OptionTable& table, RunOptions& options) {
  table.group("Data");
  table.add("dataset", options.data.dataset, "data set: " + join_capped(data::dataset_names(), 20));
  table.add("root_path", options.data.root_path, "folder that holds the data sets' folders");
  table.add("shots", options.data.shots, "training images per class");
  table.add("seed", options.data.seed, "seed of the few-shot sample and of training");

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
  table.add("batch_size", options.training.batch_size, "images per iteration");

  table.group("Results");
  table.add(
      "adapter", options.output.adapter,
      "adapter to go on from, or with --eval_only to evaluate: the authors' .pt, a PEFT folder, or ours");
  table.add("save_path", options.output.save_path,
            "folder for adapter and results; without it they are printed only");
  table.add("filename", options.output.filename, "name of the adapter's file, .pt is added");
  table.add("eval_only", options.output.eval_only, "evaluate the saved adapter instead of training one");

  table.group("Computing");
  table.add("device", options.compute.device, "auto, cpu, cuda or cuda:N");
  table.add("precision", options.compute.precision,
            "auto (fp16 on CUDA, fp32 on the CPU), fp32, fp16 or bf16");
  table.add("verbose", options.compute.verbose, "say more");
  table.add("quiet", options.compute.quiet, "print accuracies and errors only");
}

}  // namespace clip_lora::cli
