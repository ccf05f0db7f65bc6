#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/run.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/io/folder_lock.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "run_data.hpp"
#include "run_session.hpp"
#include "run_training.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {

/// Bad data of one split, which the message names.
class SplitError : public DataError {
 public:
  using DataError::DataError;
};

/// What runs do alike, whatever they measure: one model, one adapter, the files that both leave, warnings and
/// times.
class RunBase {
 public:
  /// Loads the model. Without an observer it prints what happens.
  RunBase(RunOptions options, RunSession::Kept& kept, const RunObserver* observer);
  RunBase(const RunBase&) = delete;
  RunBase& operator=(const RunBase&) = delete;

 protected:
  ~RunBase() = default;

  bool trains() const { return !options_.output.eval_only; }
  /// Whether this process only helps another one to train, which evaluates and saves.
  bool only_trains() const { return only_trains_; }
  bool saving() const { return keeps_files() && !only_trains(); }
  bool silent() const { return observer_ != nullptr || only_trains(); }
  bool quiet() const { return options_.compute.quiet || silent(); }

  /// Takes the run's pictures and finds its folder, its templates and the adapter that it begins with.
  std::shared_ptr<lora::Adapter> begin(RunData data);

  /// Before anything is computed: sees that what will be written can be, finds the checkpoint that --resume
  /// goes on from, and prints the header, whose second line says what the run is of, and the warnings so far.
  void open(const std::string& pictures);

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

  /// Images that the model looks at more than once, decoded by the first look. A cache does that for later
  /// processes too.
  struct Seen {
    const std::vector<data::Item>& items;
    bool in_other_runs;
    int border_px = 0;  ///< that each has around it, see data::ShiftedImages
    std::shared_ptr<data::EvaluationViews> views = nullptr;
  };
  data::EvaluationLoader evaluation_loader(Seen& images) const;
  image::Preprocessing preprocessing_of(const Seen& images) const;

  /// Does nothing for an adapter of which nothing is trained. See TrainingHooks for `validation_accuracy`,
  /// which the first of several processes computes for all. Behind it each process is alone.
  TrainingReport train(const lora::Adapter& adapter, const TrainingTexts& texts,
                       const std::function<double()>& validation_accuracy);

  /// Saved before the final evaluation, so that an interruption there loses nothing. Older results of another
  /// adapter go, and so does one of the other format, which --eval_only might take for this one.
  void save_adapter(const lora::Adapter& adapter);

  /// Calls the observer, if there is one.
  void announce_saving() const;

  /// What results.json begins with.
  nlohmann::ordered_json first_results() const;
  /// Adds how the results came about: training, images, times, memory, versions, settings.
  void add_circumstances(nlohmann::ordered_json& results);
  /// Writes results.json, with which the run is done, and says so.
  void write_results(const nlohmann::ordered_json& results);

  std::filesystem::path starting_path() const;

  RunOptions options_;
  RunSession::Kept& kept_;
  const RunObserver* observer_;
  const int processes_;  // that train together
  const bool only_trains_;
  std::ostream out_;  // the standard output, or nowhere
  Stopwatch stopwatch_;
  at::Device device_;
  at::ScalarType dtype_;
  Model model_;
  model::Clip clip_;  // that of model_
  std::filesystem::path folder_;
  RunData data_;
  std::vector<std::string> templates_;  // at least one, once the adapter is there; none of captions
  TrainingReport training_;
  std::vector<std::string> warnings_;
  nlohmann::ordered_json seconds_;

 private:
  bool keeps_files() const { return !options_.output.save_path.empty() && trains(); }
  Model find_model();
  void warn(const std::string& warning);
  std::filesystem::path saved_path(lora::AdapterFormat format) const;
  /// Of a training that has diverged: beside the adapter of one before, which may be there with its results.
  std::filesystem::path last_good_path(lora::AdapterFormat format) const;
  /// Saves what such a training has left, and says so as the end of a sentence.
  std::string save_last_good(const lora::Adapter& adapter) const;
  std::filesystem::path adapter_path() const { return saved_path(saved_format_); }
  lora::AdapterContext context() const;
  void require_result_folder();
  void print_header(const std::string& pictures);
  void print_left_out();
  std::shared_ptr<data::EvaluationViews> make_views(const Seen& images) const;
  std::string what_was_kept() const;

  std::optional<io::FolderLock> lock_;  // of a run that saves and is no sweep's
  TrainingFiles training_files_;
  lora::AdapterFormat saved_format_ = lora::AdapterFormat::kAuthors;
  bool adapter_saved_ = false;
};

}  // namespace clip_lora::cli
