#include "clip_lora/cli/run.hpp"

#include <torch/version.h>

#include <cmath>
#include <iostream>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/data/few_shot.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/text/prompts.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "clip_lora/train/trainer.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluationBatch = 256;

/// The name that results are filed under: the published name of the checkpoint's architecture, or the file's stem.
/// Throws ConfigError if --backbone says otherwise.
std::string backbone_name(const ModelOptions& options, const model::ClipArchitecture& architecture) {
  const std::string stem = fs::path(options.checkpoint).stem().string();
  const std::string name = model::published_name(architecture).value_or(stem);
  const bool defaulted = options.backbone == ModelOptions{}.backbone;
  if (!defaulted && options.backbone != name && options.backbone != stem) {
    throw ConfigError("--backbone '" + options.backbone + "': the checkpoint '" + options.checkpoint + "' holds " + name +
                      " (" + model::describe(architecture) + ")");
  }
  return name;
}

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
        clip_(load_model()) {}

  RunResult execute() {
    load_data();
    if (saving()) {
      io::require_writable(folder_);
    }
    print_header();
    prompts_ = train::class_prompts(text::Tokenizer(), dataset_.class_names, std::string(text::kDefaultTemplate),
                                    clip_->architecture().context_length);
    lora::Adapter adapter(clip_, options_.lora);
    seconds_["load"] = stopwatch_.seconds();

    RunResult result;
    if (options_.output.eval_only) {
      lora::load_adapter(adapter_path(), adapter);
    } else {
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
  fs::path adapter_path() const { return folder_ / (options_.output.filename + ".pt"); }

  model::Clip load_model() {
    seed_everything(options_.data.seed);
    const std::string& path = options_.model.checkpoint;
    model::Clip clip = model::load_clip(io::read_safetensors(path).tensors, path);
    options_.model.backbone = backbone_name(options_.model, clip->architecture());
    log_detail("checkpoint '" + path + "': " + model::describe(clip->architecture()));
    clip->to(device_, dtype_);
    return clip;
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
    std::cout << "clip_lora " << kVersion << "   " << options_.model.backbone << " (" << options_.model.checkpoint
              << ")   " << describe_device(device_) << ", " << precision_name(dtype_) << "\n"
              << dataset_.name << "   " << with_commas(static_cast<std::int64_t>(dataset_.class_names.size()))
              << " classes   " << with_commas(static_cast<std::int64_t>(few_shot_.train.size())) << " training images ("
              << options_.data.shots << " shots, seed " << options_.data.seed << ")   "
              << with_commas(static_cast<std::int64_t>(dataset_.test.size())) << " test images" << std::endl;
  }

  /// Test accuracy in percent of the model as it stands.
  double evaluate(const std::string& label) {
    const auto total = static_cast<std::int64_t>(dataset_.test.size());
    ProgressBar bar(label, "images", total, progress_enabled());
    data::EvaluationLoader loader(dataset_.test, static_cast<int>(clip_->architecture().image_size_px), kEvaluationBatch);
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
      engine::TrainingStep step(clip_, adapter, prompts_.to(device_), options_.training.optimiser, iterations);
      data::TrainingLoader loader(few_shot_.train, static_cast<int>(clip_->architecture().image_size_px),
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
      std::cout << "training   " << with_commas(iterations) << " iterations   loss " << fixed(loss, 3) << "   "
                << images_per_second(images, stopwatch) << "   " << duration(stopwatch.seconds()) << std::endl;
    }
    return images;
  }

  /// Saved before the final evaluation, so that an interruption there loses nothing. Older results of another adapter go.
  void save_adapter(const lora::Adapter& adapter) {
    if (!saving()) return;
    fs::remove(folder_ / "results.json");
    lora::save_adapter(adapter_path(), adapter);
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
      return ": the adapter is saved as '" + adapter_path().string() + "', but there is no results.json yet (hint: --eval_only)";
    }
    return ": nothing was saved; what was in '" + folder_.string() + "' before is as it was";
  }

  RunOptions options_;
  Stopwatch stopwatch_;
  at::Device device_;
  at::ScalarType dtype_;
  model::Clip clip_;
  fs::path folder_;
  data::Dataset dataset_;
  data::FewShot few_shot_;
  model::Prompts prompts_;
  nlohmann::ordered_json seconds_;
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
