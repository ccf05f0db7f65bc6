#include "clip_lora/cli/run.hpp"

#include <torch/version.h>

#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "command_line.hpp"
#include "prediction_text.hpp"
#include "run_adapter.hpp"
#include "run_data.hpp"
#include "run_prompts.hpp"
#include "run_results.hpp"
#include "run_session.hpp"
#include "run_training.hpp"
#include "saved_run.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluationBatch = 256;

/// Bad data of one split, which the message names.
class SplitError : public DataError {
 public:
  using DataError::DataError;
};

/// One run, from the options to the saved results. Its steps are methods so that each phase reads on its own.
class Run {
  // The public part below needs its deduced return type.
  /// phase(), with its time filed under `name`; an interruption says what was kept.
  template <typename Phase>
  auto timed(const std::string& name, const Phase& phase) {
    const Stopwatch stopwatch;
    try {
      auto result = phase();
      seconds_[name] = stopwatch.seconds();
      log_detail(name + " took " + duration(stopwatch.seconds()));
      return result;
    } catch (const Interrupted& interrupted) {
      throw Interrupted(interrupted.signal_number(), interrupted.what() + what_was_kept());
    }
  }

 public:
  /// Without an observer it prints what happens.
  Run(RunOptions options, RunSession::Kept& kept, const RunObserver* observer)
      : options_(std::move(options)),
        kept_(kept),
        observer_(observer),
        out_(observer == nullptr ? std::cout.rdbuf() : nullptr),
        device_(parse_device(options_.compute.device)),
        dtype_(parse_precision(options_.compute.precision, device_)),
        model_(find_model()),
        clip_(model_.loaded.clip),
        warnings_(model_.loaded.warnings) {
    if (device_.is_cpu()) reuse_freed_memory();
    reset_peak_resident();
    reset_peak_memory(device_);
  }

  RunResult execute() {
    require_clip_vocabulary(model_);
    data_ = kept_.dataset.load(options_);
    folder_ = options_.result_folder(data_.dataset.name);
    seed_everything(options_.data.seed);  // what a fresh adapter is drawn by
    const StartingAdapter start = start_adapter(starting_path(), options_, model_, data_);
    const lora::Adapter& adapter = start.adapter;
    saved_format_ = start.saved_format;
    templates_ = start.templates;
    const auto prompts = text::class_prompts(class_names(), templates_);
    text::ClassPrompts untouched_prompts;  // of the zero-shot line
    if (trains()) {
      untouched_prompts = zero_shot_prompts(options_.prompts, data_.benchmark, class_names(), templates_);
    }
    require_result_folder();
    open_training_folder();
    print_header();
    for (const auto& warning : data_.warnings) warn(warning);
    for (const auto& warning : start.warnings) warn(warning);
    seconds_["load"] = stopwatch_.seconds();

    RunResult result;
    if (trains()) {
      untouched_ = timed("zero_shot", [&] { return zero_shot(untouched_prompts); });
      result.zero_shot = metrics(*untouched_);
      out_ << "zero-shot  " << percent(result.zero_shot->accuracy()) << std::endl;
      training_ = timed("training", [&] { return train(adapter, prompts); });
      save_adapter(adapter);
    }
    const train::Predictions predictions = timed("evaluation", [&] {
      const lora::MergedScope merged(clip_, adapter);
      return predict_test("evaluation", prompts);
    });
    result.adapted = metrics(predictions);
    print_result(result);
    if (options_.output.save_predictions) save_predictions(predictions);
    if (saving()) save_results(result);
    return result;
  }

 private:
  bool trains() const { return !options_.output.eval_only; }
  bool saving() const { return !options_.output.save_path.empty() && trains(); }
  bool silent() const { return observer_ != nullptr; }
  bool quiet() const { return options_.compute.quiet || silent(); }
  const std::vector<std::string>& class_names() const { return data_.dataset.class_names; }
  train::Metrics metrics(const train::Predictions& predictions) const {
    return train::compute_metrics(predictions, static_cast<std::int64_t>(class_names().size()));
  }

  /// For the terminal and for results.json.
  void warn(const std::string& warning) {
    if (!silent()) log_warning(warning);
    warnings_.push_back(warning);
  }

  fs::path saved_path(lora::AdapterFormat format) const {
    const char* ending = format == lora::AdapterFormat::kAuthors ? ".pt" : ".safetensors";
    return folder_ / (options_.output.filename + ending);
  }
  fs::path adapter_path() const { return saved_path(saved_format_); }

  Model find_model() {
    const Model& model = kept_.model(options_);
    options_.model.backbone = model.backbone;
    options_.model.checkpoint = model.path.string();
    return model;
  }

  /// The file to evaluate or to go on from; empty for a fresh adapter.
  fs::path starting_path() const {
    if (!options_.output.adapter.empty() || trains()) return options_.output.adapter;
    const fs::path path = saved_path(lora::AdapterFormat::kSafetensors);
    return fs::exists(path) ? path : saved_path(lora::AdapterFormat::kAuthors);
  }

  /// Before anything is computed: what will be written can be, and predictions do not come to stand beside
  /// the results of another adapter. Throws ConfigError.
  void require_result_folder() const {
    if (saving()) return io::require_writable(folder_);
    if (!options_.output.save_predictions) return;
    const fs::path results = folder_ / kResultsFile;
    std::error_code ignored;
    if (fs::exists(results, ignored)) {
      const std::string source = "results '" + results.string() + "': ";
      const fs::path saved = io::read_json_object(results, source).value("adapter", "");
      if (!fs::equivalent(starting_path(), folder_ / saved.filename(), ignored)) {
        throw ConfigError("--save_predictions: " + source + "they are of another adapter than '" +
                          starting_path().string() + "' (hint: another --save_path)");
      }
    }
    io::require_writable(folder_);
  }

  /// Before anything is computed: a checkpoint that --resume cannot go on from is told now.
  void open_training_folder() {
    if (!saving()) return;
    training_files_ =
        open_training_files(options_, folder_, training_settings(options_, context(), dtype_, data_.train));
  }

  lora::AdapterContext context() const {
    return adapter_context(model_, data_.dataset.name, class_names(), templates_);
  }

  void print_header() {
    if (quiet()) return;
    const auto count = [](std::size_t number) { return with_commas(static_cast<std::int64_t>(number)); };
    const auto& shots = options_.data.shots;
    out_ << "clip_lora " << kVersion << "   " << options_.model.backbone << " (" << options_.model.checkpoint
         << ")   " << describe_device(device_) << ", " << precision_name(dtype_) << "\n"
         << printable(data_.dataset.name) << "   " << count(class_names().size()) << " classes   "
         << count(data_.train.size()) << " training images ("
         << (shots ? std::to_string(*shots) + " shots" : "all") << ", seed " << options_.data.seed << ")   ";
    if (!data_.val.empty()) out_ << count(data_.val.size()) << " validation images   ";
    out_ << count(data_.test.size()) << " test images" << std::endl;
    print_left_out();
    if (!options_.output.adapter.empty()) out_ << "adapter    " << options_.output.adapter << std::endl;
  }

  void print_left_out() {
    std::vector<std::string> counts;
    for (const auto& [split, missing] : data_.left_out) {
      if (missing > 0) counts.push_back(with_commas(missing) + " of " + split);
    }
    if (!counts.empty()) out_ << "missing    images left out: " << join_capped(counts) << std::endl;
  }

  /// Images that the model looks at more than once, decoded by the first look. A cache does that for later
  /// processes too.
  struct Seen {
    const std::vector<data::Item>& items;
    bool in_other_runs;
    std::shared_ptr<data::EvaluationViews> views = nullptr;
  };

  std::shared_ptr<data::EvaluationViews> make_views(const Seen& images) const {
    const image::Preprocessing& preprocessing = model_.loaded.preprocessing;
    if (images.in_other_runs) return kept_.test_views(images.items, preprocessing);
    return std::make_shared<data::EvaluationViews>(images.items.size(), preprocessing.size_px);
  }

  data::EvaluationLoader evaluation_loader(Seen& images) const {
    if (!images.views && trains() && options_.images.cache_folder.empty()) images.views = make_views(images);
    return {images.items,
            model_.loaded.preprocessing,
            {.batch_size = kEvaluationBatch,
             .workers = options_.images.worker_count(),
             .cache_folder = options_.images.cache_folder,
             .wait_for_cache = true,
             .views = images.views,
             .pinned = device_.is_cuda()}};
  }

  /// What the model as it stands says of `images`.
  train::Predictions predict(const std::string& label, Seen& images, const text::ClassPrompts& prompts,
                             bool progress_bar = true) {
    ProgressBar bar(label, "images", static_cast<std::int64_t>(images.items.size()),
                    progress_bar && !quiet());
    data::EvaluationLoader loader = evaluation_loader(images);
    const at::Tensor features = train::class_features(clip_, kept_.tokenizer(), prompts);
    const Stopwatch stopwatch;
    return train::evaluate(clip_, features, loader, [&](std::int64_t done) {
      bar.update(done, [&] { return images_per_second(done, stopwatch.seconds()); });
    });
  }

  /// look(), whose DataError says then which `images` it looked at.
  template <typename Look>
  auto looking_at(const std::string& images, const Look& look) const {
    try {
      return look();
    } catch (const SplitError&) {
      throw;
    } catch (const DataError& error) {
      throw SplitError(
          images + ": " + error.what() +
          (data_.benchmark == nullptr ? "" : " (hint: clip_lora datasets --verify finds all of the kind)"));
    }
  }

  train::Predictions predict_test(const std::string& label, const text::ClassPrompts& prompts) {
    return looking_at("test split", [&] { return predict(label, test_, prompts); });
  }

  /// By the untouched model, which a run before this one may have asked already.
  train::Predictions zero_shot(const text::ClassPrompts& prompts) {
    RunSession::Kept::ZeroShot asked = {
        data_.test, model_.loaded.preprocessing, prompts, options_.compute.tf32, {}};
    if (const train::Predictions* const known = kept_.zero_shot(asked)) return *known;
    asked.predictions = predict_test("zero-shot", prompts);
    train::Predictions predictions = asked.predictions;
    kept_.keep(std::move(asked));
    return predictions;
  }

  TrainingReport train(const lora::Adapter& adapter, const text::ClassPrompts& prompts) {
    RunOptions options = options_;
    options.compute.quiet = quiet();
    TrainingHooks hooks;
    hooks.validation_accuracy = [&] {
      return looking_at("validation images", [&] {
        return metrics(predict("validation", validation_, prompts, /*progress_bar=*/false)).accuracy();
      });
    };
    if (observer_ != nullptr) hooks.on_iteration = observer_->on_iteration;
    hooks.before_saving = [this] { announce_saving(); };
    return looking_at("training images", [&] {
      return train_adapter(options, data_, model_.loaded, adapter, kept_.tokenizer(),
                           training_prompts(options_.prompts, class_names(), templates_), training_files_,
                           hooks);
    });
  }

  /// Saved before the final evaluation, so that an interruption there loses nothing. Older results of another
  /// adapter go, and so does one of the other format, which --eval_only might take for this one.
  void save_adapter(const lora::Adapter& adapter) {
    if (!saving()) return;
    announce_saving();
    const fs::path written = io::temporary_name(adapter_path());  // on a full disk, nothing else has changed
    lora::save_adapter(written, adapter, context(), saved_format_);
    fs::remove(folder_ / kResultsFile);
    fs::remove(folder_ / kPredictionsFile);
    fs::rename(written, adapter_path());
    const bool is_authors = saved_format_ == lora::AdapterFormat::kAuthors;
    fs::remove(saved_path(is_authors ? lora::AdapterFormat::kSafetensors : lora::AdapterFormat::kAuthors));
    adapter_saved_ = true;
    io::write_atomically(folder_ / "config.json", io::json_text(settings(), 2) + "\n");
  }

  void announce_saving() const {
    if (observer_ != nullptr && observer_->before_saving) observer_->before_saving();
  }

  void print_result(const RunResult& result) {
    out_ << "adapted    " << percent(result.adapted.accuracy());
    if (result.zero_shot) {
      const double gain = result.adapted.accuracy() - result.zero_shot->accuracy();
      out_ << "   (" << (gain < 0 ? "" : "+") << fixed(gain, 2) << ")";
    }
    if (is_imbalanced(result.adapted)) out_ << "   macro-F1 " << fixed(result.adapted.macro_f1(), 3);
    out_ << std::endl;
    if (quiet()) return;
    for (const auto& line : mistakes(result.adapted, class_names())) out_ << line << std::endl;
  }

  void save_predictions(const train::Predictions& predictions) {
    const fs::path file = folder_ / kPredictionsFile;
    write_predictions(file, data_.test, predictions, untouched_, class_names());
    if (!saving() && !quiet()) out_ << "saved      " << file.string() << std::endl;
  }

  void save_results(const RunResult& result) {
    if (options_.training.eval_every > 0) seconds_["validation"] = training_.validation_seconds;
    seconds_["total"] = stopwatch_.seconds();
    nlohmann::ordered_json results;
    results["format"] = kResultsFormat;
    results["command"] = command_line(options_);
    results["dataset"] = data_.dataset.name;
    results["zero_shot_accuracy"] = result.zero_shot->accuracy();
    results.update(overall_json(result.adapted));
    results["zero_shot"] = overall_json(*result.zero_shot);
    results["zero_shot"]["per_class"] = per_class_json(*result.zero_shot, class_names());
    results["zero_shot"]["confusion"] = confusion_json(*result.zero_shot);
    results["training"] = training_json(training_, training_files_.resumed);
    results["validation"] = validation_json(training_);
    results["missing_images"] = data_.left_out;
    results["seconds"] = seconds_;
    results["memory"] = memory_json(device_);
    results["versions"] = {{"clip_lora", kVersion}, {"libtorch", TORCH_VERSION}};
    results["device"] = describe_device(device_) + ", " + precision_name(dtype_);
    results["adapter"] = adapter_path().string();
    results["fingerprint"] = model_.fingerprint;
    results["warnings"] = warnings_;
    results["settings"] = settings();
    results["templates"] = templates_;
    results["class_names"] = class_names();
    results["per_class"] = per_class_json(result.adapted, class_names());
    results["confusion"] = confusion_json(result.adapted);
    announce_saving();
    io::write_atomically(folder_ / kResultsFile, readable(results));
    remove_checkpoint(folder_);
    if (quiet()) return;
    const double megabytes = static_cast<double>(fs::file_size(adapter_path())) / 1e6;
    out_ << "saved      " << folder_.string() << "/   " << adapter_path().filename().string() << " "
         << fixed(megabytes, 1) << " MB   " << duration(stopwatch_.seconds()) << " in all" << std::endl;
  }

  nlohmann::ordered_json settings() {
    OptionTable table("", "");
    bind(table, options_);
    return table.to_json();
  }

  std::string what_was_kept() const {
    if (!saving()) return ": nothing was saved";
    if (const auto iteration = checkpointed_iteration(folder_)) {
      return ": '" + training_files_.checkpoint().string() + "' keeps the training after iteration " +
             std::to_string(*iteration) + " (hint: --resume goes on from there)";
    }
    if (adapter_saved_) {
      return ": the adapter is saved as '" + adapter_path().string() +
             "', but there is no results.json yet (hint: --eval_only)";
    }
    return ": nothing was saved; what was in '" + folder_.string() + "' before is as it was";
  }

  RunOptions options_;
  RunSession::Kept& kept_;
  const RunObserver* observer_;
  std::ostream out_;  // the standard output, or nowhere
  Stopwatch stopwatch_;
  at::Device device_;
  at::ScalarType dtype_;
  Model model_;
  model::Clip clip_;  // that of model_
  fs::path folder_;
  RunData data_;
  Seen test_{data_.test, /*in_other_runs=*/true};
  Seen validation_{data_.val, /*in_other_runs=*/false};
  std::vector<std::string> templates_;  // at least one, once the adapter is there
  TrainingFiles training_files_;
  std::optional<train::Predictions> untouched_;  // what the untouched model says of the test images
  TrainingReport training_;
  std::vector<std::string> warnings_;
  nlohmann::ordered_json seconds_;
  lora::AdapterFormat saved_format_ = lora::AdapterFormat::kAuthors;
  bool adapter_saved_ = false;
};

}  // namespace

RunResult run(RunOptions options) {
  options.validate();
  set_up(options.compute);
  RunSession session;
  return Run(std::move(options), session.kept(), nullptr).execute();
}

RunSession::RunSession() : kept_(std::make_unique<Kept>()) {}

RunSession::~RunSession() = default;

RunResult RunSession::run(RunOptions options, const RunObserver& observer) {
  options.validate();
  set_up(options.compute);
  return Run(std::move(options), *kept_, &observer).execute();
}

}  // namespace clip_lora::cli
