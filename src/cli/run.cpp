#include "clip_lora/cli/run.hpp"

#include <ATen/ATen.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "prediction_text.hpp"
#include "retrieval_run.hpp"
#include "run_base.hpp"
#include "run_processes.hpp"
#include "run_prompts.hpp"
#include "run_results.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// One run among classes, from the options to the saved results. Its steps are methods so that each phase
/// reads on its own.
class Run : private RunBase {
 public:
  using RunBase::RunBase;

  RunResult execute() {
    const auto adapter = begin(kept_.dataset.load(options_));
    find_others();
    const auto prompts = text::class_prompts(class_names(), templates_);
    if (trains()) {
      untouched_prompts_ = zero_shot_prompts(options_.prompts, data_.benchmark, class_names(), templates_);
    }
    open(pictures());
    if (only_trains()) {
      train_on_classes(*adapter, prompts);
      return {};
    }

    RunResult result;
    if (trains()) {
      untouched_ = timed("zero_shot", [&] { return zero_shot(); });
      result.zero_shot = metrics(*untouched_);
      if (data_.new_classes) {
        untouched_new_ = new_classes_accuracy(
            zero_shot_prompts(options_.prompts, data_.benchmark, data_.new_classes->class_names, templates_));
      }
      out_ << "zero-shot  " << percent(result.zero_shot->accuracy()) << new_classes_text(untouched_new_)
           << std::endl;
      training_ = timed("training", [&] { return train_on_classes(*adapter, prompts); });
      save_adapter(*adapter);
    }
    const train::Predictions predictions = timed("evaluation", [&] { return evaluate(*adapter, prompts); });
    result.adapted = metrics(predictions);
    print_result(result);
    if (options_.output.save_predictions) save_predictions(predictions);
    if (!others_.datasets.empty())
      result.others = timed("other_datasets", [&] { return evaluate_others(*adapter); });
    if (saving()) save_results(result);
    return result;
  }

 private:
  const std::vector<std::string>& class_names() const { return data_.dataset.class_names; }
  train::Metrics metrics(const train::Predictions& predictions) const {
    return train::compute_metrics(predictions, static_cast<std::int64_t>(class_names().size()));
  }

  /// For the header.
  std::string pictures() const {
    const auto count = [](std::size_t number) { return with_commas(static_cast<std::int64_t>(number)); };
    const auto& shots = options_.data.shots;
    std::string line = printable(data_.dataset.name) + "   " + count(class_names().size()) + " classes   " +
                       count(data_.train.size()) + " training images (" +
                       (shots ? std::to_string(*shots) + " shots" : "all") + ", seed " +
                       std::to_string(options_.data.seed) + ")   ";
    if (!data_.val.empty()) line += count(data_.val.size()) + " validation images   ";
    return line + count(data_.test.size()) + " test images";
  }

  /// The other data sets of the protocol are found before anything is computed.
  void find_others() {
    others_ = kept_.other_datasets.load(options_, class_names().size());
    data_.warnings.insert(data_.warnings.end(), others_.warnings.begin(), others_.warnings.end());
    for (const auto& other : others_.datasets) {
      if (other->left_out > 0) data_.left_out[other->name] = other->left_out;
    }
  }

  /// By the model as it stands, [C, E].
  at::Tensor class_features(const text::ClassPrompts& prompts) {
    return train::class_features(clip_, kept_.tokenizer(), prompts);
  }

  /// By the untouched model, which the model has to be. Made when they are first needed.
  const at::Tensor& untouched_features() {
    if (!untouched_features_.defined()) untouched_features_ = class_features(untouched_prompts_);
    return untouched_features_;
  }

  /// What the model as it stands says of `images`, by its features of the classes.
  train::Predictions predict(const std::string& label, Seen& images, const at::Tensor& features,
                             bool progress_bar = true) {
    ProgressBar bar(label, "images", static_cast<std::int64_t>(images.items.size()),
                    progress_bar && !quiet());
    data::EvaluationLoader loader = evaluation_loader(images);
    const Stopwatch stopwatch;
    return train::evaluate(clip_, features, loader, [&](std::int64_t done) {
      bar.update(done, [&] { return images_per_second(done, stopwatch.seconds()); });
    });
  }

  /// How well new classes are recognised, percent, by the model as it stands.
  double new_classes_accuracy(const text::ClassPrompts& prompts) {
    if (!new_test_) new_test_.emplace(Seen{data_.new_classes->test, /*in_other_runs=*/false});
    const at::Tensor features = class_features(prompts);
    const auto predictions =
        looking_at("test split", [&] { return predict("new classes", *new_test_, features); });
    const auto classes = static_cast<std::int64_t>(data_.new_classes->class_names.size());
    return train::compute_metrics(predictions, classes).accuracy();
  }

  /// At every --eval_scale; the predictions are those of the first.
  train::Predictions evaluate(const lora::Adapter& adapter, const text::ClassPrompts& prompts) {
    std::optional<train::Predictions> first;
    for (const double scale : options_.eval_scales) {
      const lora::MergedScope merged(clip_, adapter, scale);
      scaled_features_.push_back(class_features(prompts));
      train::Predictions predictions =
          looking_at("test split", [&] { return predict("evaluation", test_, scaled_features_.back()); });
      ScaledAccuracy accuracy = {scale, metrics(predictions).accuracy(), {}};
      if (data_.new_classes) {
        accuracy.new_classes =
            new_classes_accuracy(text::class_prompts(data_.new_classes->class_names, templates_));
      }
      scaled_.push_back(accuracy);
      if (!first) first = std::move(predictions);
    }
    return *first;
  }

  /// By the untouched model, which a run before this one may have asked already.
  template <typename Predict>
  train::Predictions zero_shot(const std::string& dataset, const Seen& images,
                               const text::ClassPrompts& prompts, const Predict& predict_untouched) {
    const ComputeOptions& compute = options_.compute;
    RunSession::Kept::ZeroShot asked = {
        dataset, images.items, preprocessing_of(images), prompts, compute.tf32, compute.deterministic, {}};
    if (const train::Predictions* const known = kept_.zero_shot(asked)) return *known;
    asked.predictions = predict_untouched();
    train::Predictions predictions = asked.predictions;
    kept_.keep(std::move(asked));
    return predictions;
  }

  train::Predictions zero_shot() {
    return zero_shot(data_.dataset.name, test_, untouched_prompts_, [&] {
      return looking_at("test split", [&] { return predict("zero-shot", test_, untouched_features()); });
    });
  }

  /// Data set by data set, so that the images of one alone are kept for the next look at them.
  std::vector<OtherResult> evaluate_others(const lora::Adapter& adapter) {
    if (!silent()) test_.views.reset();
    std::vector<OtherResult> results;
    for (const auto& other : others_.datasets) {
      results.push_back(evaluate(*other, adapter));
      out_ << other_text(results.back(), options_.eval_scales) << std::endl;
    }
    out_ << other_text(mean_of(results), options_.eval_scales) << std::endl;
    return results;
  }

  OtherResult evaluate(const OtherDataset& other, const lora::Adapter& adapter) {
    Seen images = {other.test, /*in_other_runs=*/false, other.border_px};
    OtherResult result = {other.name, other.classes, std::ssize(other.test)};
    const auto accuracy = [&](const train::Predictions& predictions) {
      return train::accuracy(predictions, other.meanings);
    };
    const auto predict_other = [&](const at::Tensor& features) {
      return looking_at(other.name, [&] { return predict(other.name, images, features); });
    };
    if (trains()) {
      const auto& prompts = other.is_shift() ? untouched_prompts_ : other.prompts;
      result.zero_shot_accuracy = accuracy(zero_shot(other.name, images, prompts, [&] {
        return predict_other(other.is_shift() ? counted_features(other, untouched_features())
                                              : class_features(prompts));
      }));
    }
    for (std::size_t i = 0; i < options_.eval_scales.size(); ++i) {
      const lora::MergedScope merged(clip_, adapter, options_.eval_scales[i]);
      result.accuracies.push_back(accuracy(predict_other(
          other.is_shift() ? counted_features(other, scaled_features_[i]) : class_features(other.prompts))));
    }
    return result;
  }

  /// Those of the run's own classes among which a shift predicts.
  static at::Tensor counted_features(const OtherDataset& shift, const at::Tensor& own) {
    if (shift.counted_labels.empty()) return own;
    return own.index_select(0, at::tensor(shift.counted_labels).to(own.device()));
  }

  TrainingReport train_on_classes(const lora::Adapter& adapter, const text::ClassPrompts& prompts) {
    const TrainingTexts texts =
        class_texts(training_prompts(options_.prompts, class_names(), templates_), data_.train);
    return train(adapter, texts, [&] {
      return looking_at("validation images", [&] {
        const at::Tensor features = class_features(prompts);
        return metrics(predict("validation", validation_, features, /*progress_bar=*/false)).accuracy();
      });
    });
  }

  void print_result(const RunResult& result) {
    const double adapted = result.adapted.accuracy();
    out_ << "adapted    " << percent(adapted);
    if (result.zero_shot) out_ << gain_text(adapted, result.zero_shot->accuracy());
    out_ << new_classes_text(scaled_.front().new_classes);
    if (is_imbalanced(result.adapted)) out_ << "   macro-F1 " << fixed(result.adapted.macro_f1(), 3);
    out_ << std::endl;
    for (std::size_t i = 0; scaled_.size() > 1 && i < scaled_.size(); ++i) {
      out_ << "scale " << fixed(scaled_[i].scale, 2) << " " << percent(scaled_[i].accuracy)
           << new_classes_text(scaled_[i].new_classes) << std::endl;
    }
    if (quiet()) return;
    for (const auto& line : mistakes(result.adapted, class_names())) out_ << line << std::endl;
  }

  void save_predictions(const train::Predictions& predictions) {
    const fs::path file = folder_ / kPredictionsFile;
    write_predictions(file, data_.test, predictions, untouched_, class_names());
    if (!saving() && !quiet()) out_ << "saved      " << file.string() << std::endl;
  }

  void save_results(const RunResult& result) {
    nlohmann::ordered_json results = first_results();
    results["zero_shot_accuracy"] = result.zero_shot->accuracy();
    results.update(overall_json(result.adapted));
    results["scales"] = scales_json(scaled_, result.zero_shot->accuracy(), untouched_new_);
    if (!result.others.empty()) {
      results["other_datasets"] = others_json(result.others, options_.eval_scales);
      results["mean_of_others"] = mean_json(result.others, options_.eval_scales);
    }
    results["zero_shot"] = overall_json(*result.zero_shot);
    results["zero_shot"]["per_class"] = per_class_json(*result.zero_shot, class_names());
    results["zero_shot"]["confusion"] = confusion_json(*result.zero_shot);
    add_circumstances(results);
    results["per_class"] = per_class_json(result.adapted, class_names());
    results["confusion"] = confusion_json(result.adapted);
    write_results(results);
  }

  Seen test_{data_.test, /*in_other_runs=*/silent()};
  Seen validation_{data_.val, /*in_other_runs=*/false};
  std::optional<Seen> new_test_;                 // of the new classes, once they are looked at
  std::optional<train::Predictions> untouched_;  // what the untouched model says of the test images
  std::optional<double> untouched_new_;          // its accuracy on new classes, percent
  std::vector<ScaledAccuracy> scaled_;           // by --eval_scale
  text::ClassPrompts untouched_prompts_;         // of the zero-shot line
  at::Tensor untouched_features_;                // [C, E], see untouched_features()
  std::vector<at::Tensor> scaled_features_;      // [C, E], by --eval_scale
  OtherDatasets others_;
};

RunResult execute(RunOptions options, RunSession::Kept& kept, const RunObserver* observer) {
  options.validate();
  if (observer == nullptr) kept.processes = join_processes(options);
  set_up(options.compute);
  try {
    if (options.data.protocol == kRetrieval) return run_retrieval(std::move(options), kept, observer);
    return Run(std::move(options), kept, observer).execute();
  } catch (const Interrupted& interrupted) {
    // The others know, or learn it from process 0, which may have been interrupted while they waited for it.
    if (kept.processes && kept.processes->is_first()) kept.processes->report_failure(interrupted.what());
    throw;
  } catch (const std::exception& error) {
    if (kept.processes) kept.processes->report_failure(error.what());
    throw;
  }
}

}  // namespace

RunResult run(RunOptions options) {
  RunSession session;
  return execute(std::move(options), session.kept(), nullptr);
}

RunSession::RunSession() : kept_(std::make_unique<Kept>()) {}

RunSession::~RunSession() = default;

RunResult RunSession::run(RunOptions options, const RunObserver& observer) {
  return execute(std::move(options), *kept_, &observer);
}

}  // namespace clip_lora::cli
