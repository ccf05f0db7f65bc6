#include "clip_lora/cli/run.hpp"

#include <torch/version.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/lora/summary.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "clip_lora/train/trainer.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluationBatch = 256;

std::string images_per_second(std::int64_t images, const Stopwatch& stopwatch) {
  return with_commas(std::llround(static_cast<double>(images) / stopwatch.seconds())) + " images/s";
}

/// One run, from the options to the saved results. Its steps are methods so that each phase reads on its own.
class Run {
  // The public part below needs its deduced return type.
  /// phase(), with its time filed under `name`.
  template <typename Phase>
  auto timed(const std::string& name, const Phase& phase) {
    const Stopwatch stopwatch;
    const auto result = phase();
    seconds_[name] = stopwatch.seconds();
    log_detail(name + " took " + duration(stopwatch.seconds()));
    return result;
  }

 public:
  explicit Run(RunOptions options)
      : options_(std::move(options)),
        device_(parse_device(options_.compute.device)),
        dtype_(parse_precision(options_.compute.precision, device_)),
        model_(find_model()),
        clip_(model_.loaded.clip) {}

  RunResult execute() {
    require_clip_vocabulary(model_);
    load_data();
    if (saving()) io::require_writable(folder_);
    print_header();
    prompts_ =
        train::class_prompts(text::Tokenizer(), dataset_.class_names, std::string(text::kDefaultTemplate),
                             clip_->architecture().context_length);
    const lora::Adapter adapter = starting_adapter();
    seconds_["load"] = stopwatch_.seconds();

    RunResult result;
    if (!options_.output.eval_only) {
      result.zero_shot_accuracy = timed("zero_shot", [&] { return evaluate("zero-shot"); });
      std::cout << "zero-shot  " << percent(*result.zero_shot_accuracy) << std::endl;
      timed("training", [&] { return train(adapter); });
      save_adapter(adapter);
    }
    result.accuracy = timed("evaluation", [&] {
      const lora::MergedScope merged(clip_, adapter);
      return evaluate("evaluation");
    });
    print_accuracy(result);
    if (saving()) save_results(result);
    return result;
  }

 private:
  bool saving() const { return !options_.output.save_path.empty() && !options_.output.eval_only; }
  bool progress_enabled() const { return !options_.compute.quiet; }
  /// Of what this run saves: the authors' format, unless it goes on from another one, which may say more than
  /// theirs.
  fs::path saved_path(lora::AdapterFormat format) const {
    const char* ending = format == lora::AdapterFormat::kAuthors ? ".pt" : ".safetensors";
    return folder_ / (options_.output.filename + ending);
  }
  fs::path adapter_path() const { return saved_path(saved_format_); }

  Model find_model() {
    seed_everything(options_.data.seed);
    Model model = load_model(options_.model);
    options_.model.backbone = model.backbone;
    options_.model.checkpoint = model.path.string();
    model.loaded.clip->to(device_, dtype_);
    return model;
  }

  /// The file to evaluate or to go on from; empty for a fresh adapter.
  fs::path starting_path() const {
    if (!options_.output.adapter.empty() || !options_.output.eval_only) return options_.output.adapter;
    const fs::path path = saved_path(lora::AdapterFormat::kSafetensors);
    return fs::exists(path) ? path : saved_path(lora::AdapterFormat::kAuthors);
  }

  lora::Adapter starting_adapter() {
    const fs::path path = starting_path();
    if (path.empty()) return {clip_, options_.lora};
    lora::LoadedAdapter loaded = lora::load_adapter(path, clip_, model_.fingerprint);
    require_agreement(loaded.adapter, path);
    if (const auto warning = preprocessing_warning(model_, loaded, path)) {
      log_warning(*warning);
      model_.loaded.warnings.push_back(*warning);
    }
    const double dropout = options_.lora.dropout;
    loaded.adapter.set_dropout(dropout);
    options_.lora = options_of(loaded.adapter);
    options_.lora.dropout = dropout;
    if (loaded.format != lora::AdapterFormat::kAuthors) saved_format_ = lora::AdapterFormat::kSafetensors;
    return loaded.adapter;
  }

  /// In the terms of the flags; where its blocks differ, what they have in common.
  static lora::LoraOptions options_of(const lora::Adapter& adapter) {
    return lora::summarise(adapter).options.value_or(adapter.options());
  }

  /// A saved adapter must be what all options say, one of --adapter only what those say that were written
  /// out.
  void require_agreement(const lora::Adapter& adapter, const fs::path& path) const {
    if (options_.output.adapter.empty()) return lora::require_same_options(adapter, options_.lora, path);
    lora::require_same_options(adapter, options_.lora, path, options_.given);
  }

  lora::AdapterContext context() const {
    return adapter_context(model_, dataset_.name, dataset_.class_names,
                           {std::string(text::kDefaultTemplate)});
  }

  void load_data() {
    folder_ = options_.result_folder();
    dataset_ = data::load_dataset(options_.data.dataset, options_.data.root_path);
    few_shot_ = data::sample_few_shot(dataset_, static_cast<int>(options_.data.shots), options_.data.seed);
    if (!options_.output.eval_only) data::require_images(few_shot_.train, "few-shot training sample");
    data::require_images(dataset_.test, "test split");
  }

  void print_header() const {
    if (options_.compute.quiet) return;
    std::cout << "clip_lora " << kVersion << "   " << options_.model.backbone << " ("
              << options_.model.checkpoint << ")   " << describe_device(device_) << ", "
              << precision_name(dtype_) << "\n"
              << dataset_.name << "   " << with_commas(static_cast<std::int64_t>(dataset_.class_names.size()))
              << " classes   " << with_commas(static_cast<std::int64_t>(few_shot_.train.size()))
              << " training images (" << options_.data.shots << " shots, seed " << options_.data.seed
              << ")   " << with_commas(static_cast<std::int64_t>(dataset_.test.size())) << " test images"
              << std::endl;
    if (!options_.output.adapter.empty()) std::cout << "adapter    " << options_.output.adapter << std::endl;
  }

  /// Test accuracy in percent of the model as it stands.
  double evaluate(const std::string& label) {
    const auto total = static_cast<std::int64_t>(dataset_.test.size());
    ProgressBar bar(label, "images", total, progress_enabled());
    data::EvaluationLoader loader(dataset_.test, model_.loaded.preprocessing, kEvaluationBatch);
    const at::Tensor features = train::class_features(clip_, prompts_);
    const Stopwatch stopwatch;
    const auto show = [&](std::int64_t done) {
      bar.update(done, [&] { return images_per_second(done, stopwatch); });
    };
    try {
      return train::evaluate(clip_, features, loader, show).percent();
    } catch (const Interrupted& interrupted) {
      throw Interrupted(interrupted.signal_number(), interrupted.what() + what_was_kept());
    }
  }

  std::int64_t train(const lora::Adapter& adapter) {
    const std::int64_t iterations = options_.iterations();
    log_detail(with_commas(adapter.parameter_count()) + " trainable parameters in " +
               std::to_string(adapter.blocks().size()) + " blocks");
    const Stopwatch stopwatch;
    std::int64_t images = 0;
    double loss = 0.0;
    {
      engine::TrainingStep step(clip_, adapter, prompts_.to(device_), options_.training.optimiser,
                                iterations);
      data::TrainingLoader loader(few_shot_.train, model_.loaded.preprocessing,
                                  static_cast<int>(options_.training.batch_size),
                                  static_cast<std::uint64_t>(options_.data.seed));
      ProgressBar bar("training", "iterations", iterations, progress_enabled());
      const auto show = [&](const train::Progress& progress) {
        images = progress.images;
        if (progress.iteration == progress.total) loss = progress.loss();
        bar.update(progress.iteration, [&] {
          return "loss " + fixed(progress.loss(), 3) + "  lr " + scientific(progress.learning_rate) + "  " +
                 images_per_second(images, stopwatch);
        });
      };
      try {
        train::train(step, loader, clip_, iterations, show);
      } catch (const Interrupted& interrupted) {
        throw Interrupted(interrupted.signal_number(), interrupted.what() + what_was_kept());
      }
    }
    if (!options_.compute.quiet) {
      std::cout << "training   " << with_commas(iterations) << " iterations   loss " << fixed(loss, 3)
                << "   " << images_per_second(images, stopwatch) << "   " << duration(stopwatch.seconds())
                << std::endl;
    }
    return images;
  }

  /// Saved before the final evaluation, so that an interruption there loses nothing. Older results of another
  /// adapter go, and so does one of the other format, which --eval_only might take for this one.
  void save_adapter(const lora::Adapter& adapter) {
    if (!saving()) return;
    fs::remove(folder_ / "results.json");
    lora::save_adapter(adapter_path(), adapter, context(), saved_format_);
    const bool is_authors = saved_format_ == lora::AdapterFormat::kAuthors;
    fs::remove(saved_path(is_authors ? lora::AdapterFormat::kSafetensors : lora::AdapterFormat::kAuthors));
    adapter_saved_ = true;
    io::write_atomically(folder_ / "config.json", settings().dump(2) + "\n");
  }

  void print_accuracy(const RunResult& result) const {
    std::cout << "adapted    " << percent(result.accuracy);
    if (result.zero_shot_accuracy) {
      const double gain = result.accuracy - *result.zero_shot_accuracy;
      std::cout << "   (" << (gain < 0 ? "" : "+") << fixed(gain, 2) << ")";
    }
    std::cout << std::endl;
  }

  void save_results(const RunResult& result) {
    seconds_["total"] = stopwatch_.seconds();
    nlohmann::ordered_json results;
    results["zero_shot_accuracy"] = *result.zero_shot_accuracy;
    results["accuracy"] = result.accuracy;
    results["seconds"] = seconds_;
    results["versions"] = {{"clip_lora", kVersion}, {"libtorch", TORCH_VERSION}};
    results["device"] = describe_device(device_) + ", " + precision_name(dtype_);
    results["adapter"] = adapter_path().string();
    results["warnings"] = model_.loaded.warnings;
    results["settings"] = settings();
    io::write_atomically(folder_ / "results.json", results.dump(2) + "\n");
    if (options_.compute.quiet) return;
    const double megabytes = static_cast<double>(fs::file_size(adapter_path())) / 1e6;
    std::cout << "saved      " << folder_.string() << "/   " << adapter_path().filename().string() << " "
              << fixed(megabytes, 1) << " MB   " << duration(stopwatch_.seconds()) << " in all" << std::endl;
  }

  nlohmann::ordered_json settings() {
    OptionTable table("", "");
    bind(table, options_);
    return table.to_json();
  }

  std::string what_was_kept() const {
    if (!saving()) return ": nothing was saved";
    if (adapter_saved_) {
      return ": the adapter is saved as '" + adapter_path().string() +
             "', but there is no results.json yet (hint: --eval_only)";
    }
    return ": nothing was saved; what was in '" + folder_.string() + "' before is as it was";
  }

  RunOptions options_;
  Stopwatch stopwatch_;
  at::Device device_;
  at::ScalarType dtype_;
  Model model_;
  model::Clip clip_;  // that of model_
  fs::path folder_;
  data::Dataset dataset_;
  data::FewShot few_shot_;
  model::Prompts prompts_;
  nlohmann::ordered_json seconds_;
  lora::AdapterFormat saved_format_ = lora::AdapterFormat::kAuthors;
  bool adapter_saved_ = false;
};

}  // namespace

RunResult run(RunOptions options) {
  options.validate();
  if (options.compute.verbose) set_verbosity(Verbosity::kVerbose);
  if (options.compute.quiet) set_verbosity(Verbosity::kQuiet);
  catch_interrupts();
  return Run(std::move(options)).execute();
}

}  // namespace clip_lora::cli
