#include "run_base.hpp"

#include <ATen/ATen.h>
#include <torch/version.h>

#include <iostream>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"
#include "run_adapter.hpp"
#include "run_processes.hpp"
#include "run_results.hpp"
#include "saved_run.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr int kEvaluationBatch = 256;

std::string ending_of(lora::AdapterFormat format) {
  return format == lora::AdapterFormat::kAuthors ? ".pt" : ".safetensors";
}

}  // namespace

RunBase::RunBase(RunOptions options, RunSession::Kept& kept, const RunObserver* observer)
    : options_(std::move(options)),
      kept_(kept),
      observer_(observer),
      processes_(kept.processes ? kept.processes->size() : 1),
      only_trains_(kept.processes && !kept.processes->is_first()),
      out_(silent() ? nullptr : std::cout.rdbuf()),
      device_(parse_device(options_.compute.device)),
      dtype_(parse_precision(options_.compute.precision, device_)),
      model_(find_model()),
      clip_(model_.loaded.clip),
      warnings_(model_.loaded.warnings) {
  if (device_.is_cpu()) reuse_freed_memory();
  reset_peak_resident();
  reset_peak_memory(device_);
  require_clip_vocabulary(model_);
}

Model RunBase::find_model() {
  const Model& model = kept_.model(options_);
  options_.model.backbone = model.backbone;
  options_.model.checkpoint = model.path.string();
  return model;
}

std::shared_ptr<lora::Adapter> RunBase::begin(RunData data) {
  data_ = std::move(data);
  folder_ = options_.result_folder(data_.dataset.name);
  seed_everything(options_.data.seed);  // what a fresh adapter is drawn by
  StartingAdapter start = start_adapter(starting_path(), options_, model_, data_);
  saved_format_ = start.saved_format;
  // Ours alone says what an adapter is to be merged at.
  if (options_.eval_scales.front() != 1.0) saved_format_ = lora::AdapterFormat::kSafetensors;
  templates_ = std::move(start.templates);
  data_.warnings.insert(data_.warnings.end(), start.warnings.begin(), start.warnings.end());
  return start.adapter;
}

void RunBase::open(const std::string& pictures) {
  if (!only_trains()) require_result_folder();
  if (keeps_files() || kept_.processes) {
    const auto settings = training_settings(options_, context(), dtype_, data_);
    if (keeps_files()) training_files_ = open_training_files(options_, folder_, settings);
    training_files_.settings = settings;
  }
  if (kept_.processes) require_same_training(*kept_.processes, training_files_, device_);
  if (only_trains()) training_files_.folder.clear();
  if (!quiet()) print_header(pictures);
  for (const auto& warning : data_.warnings) warn(warning);
  seconds_["load"] = stopwatch_.seconds();
}

/// For the terminal and for results.json.
void RunBase::warn(const std::string& warning) {
  if (!silent()) log_warning(warning);
  warnings_.push_back(warning);
}

fs::path RunBase::saved_path(lora::AdapterFormat format) const {
  return folder_ / (options_.output.filename + ending_of(format));
}

fs::path RunBase::last_good_path(lora::AdapterFormat format) const {
  return folder_ / (options_.output.filename + ".last_good" + ending_of(format));
}

/// The file to evaluate or to go on from; empty for a fresh adapter.
fs::path RunBase::starting_path() const {
  if (!options_.output.adapter.empty() || trains()) return options_.output.adapter;
  const fs::path path = saved_path(lora::AdapterFormat::kSafetensors);
  return fs::exists(path) ? path : saved_path(lora::AdapterFormat::kAuthors);
}

/// What will be written can be, and predictions do not come to stand beside the results of another adapter.
/// Throws ConfigError.
void RunBase::require_result_folder() {
  if (saving()) {
    io::require_writable(folder_);
    if (observer_ == nullptr) lock_.emplace(folder_);  // a sweep has leases
    return io::remove_temporaries(folder_, io::Abandoned::kOfTheDead);
  }
  if (!options_.output.save_predictions) return;
  const fs::path results = folder_ / kResultsFile;
  std::error_code ignored;
  if (fs::exists(results, ignored)) {
    const std::string source = "results '" + results.string() + "': ";
    const nlohmann::json adapter = io::read_json_object(results, source).value("adapter", nlohmann::json());
    const fs::path saved = adapter.is_string() ? adapter.get<std::string>() : "";
    if (!fs::equivalent(starting_path(), folder_ / saved.filename(), ignored)) {
      throw ConfigError("--save_predictions: " + source + "they are of another adapter than '" +
                        starting_path().string() + "' (hint: another --save_path)");
    }
  }
  io::require_writable(folder_);
  io::remove_temporaries(folder_, io::Abandoned::kOfTheDead);
}

lora::AdapterContext RunBase::context() const {
  lora::AdapterContext context =
      adapter_context(model_, data_.dataset.name, data_.dataset.class_names, templates_);
  context.scale = options_.eval_scales.front();
  return context;
}

void RunBase::print_header(const std::string& pictures) {
  out_ << "clip_lora " << kVersion << "   " << options_.model.backbone << " (" << options_.model.checkpoint
       << ")   " << describe_device(device_) << ", " << precision_name(dtype_) << "\n"
       << pictures << std::endl;
  print_left_out();
  if (!options_.output.adapter.empty()) out_ << "adapter    " << options_.output.adapter << std::endl;
}

void RunBase::print_left_out() {
  std::vector<std::string> counts;
  for (const auto& [split, missing] : data_.left_out) {
    if (missing > 0) counts.push_back(with_commas(missing) + " of " + split);
  }
  if (!counts.empty()) out_ << "missing    images left out: " << join_capped(counts) << std::endl;
}

image::Preprocessing RunBase::preprocessing_of(const Seen& images) const {
  image::Preprocessing preprocessing = model_.loaded.preprocessing;
  preprocessing.border_px = images.border_px;
  return preprocessing;
}

std::shared_ptr<data::EvaluationViews> RunBase::make_views(const Seen& images) const {
  const image::Preprocessing preprocessing = preprocessing_of(images);
  if (images.in_other_runs) return kept_.test_views(images.items, preprocessing);
  return std::make_shared<data::EvaluationViews>(images.items.size(), preprocessing.size_px);
}

data::EvaluationLoader RunBase::evaluation_loader(Seen& images) const {
  const bool looks_again = trains() || options_.eval_scales.size() > 1;
  if (!images.views && looks_again && options_.images.cache_folder.empty()) images.views = make_views(images);
  return {images.items,
          preprocessing_of(images),
          {.batch_size = kEvaluationBatch,
           .workers = options_.images.worker_count(),
           .cache_folder = options_.images.cache_folder,
           .wait_for_cache = true,
           .views = images.views,
           .pinned = device_.is_cuda()}};
}

TrainingReport RunBase::train(const lora::Adapter& adapter, const TrainingTexts& texts,
                              const std::function<double()>& validation_accuracy) {
  if (adapter.parameter_count() == 0) return {};
  RunOptions options = options_;
  options.compute.quiet = quiet();
  TrainingHooks hooks;
  hooks.processes = kept_.processes.get();
  hooks.validation_accuracy = validation_accuracy;
  if (hooks.processes != nullptr) {
    hooks.validation_accuracy = [&] { return of_first(*kept_.processes, validation_accuracy); };
  }
  if (observer_ != nullptr) hooks.on_iteration = observer_->on_iteration;
  hooks.before_saving = [this] { announce_saving(); };
  try {
    TrainingReport report = looking_at("training images", [&] {
      return train_adapter(options, data_, model_.loaded, adapter, kept_.tokenizer(), texts, training_files_,
                           hooks);
    });
    kept_.processes.reset();
    return report;
  } catch (const train::Diverged& diverged) {
    // The first process saves before it tells the others, whose failure would end it.
    if (only_trains()) {
      try {
        kept_.processes->barrier();
      } catch (const Interrupted&) {
        throw;
      } catch (const Error&) {  // the first one's, of this
      }
      throw;
    }
    throw train::Diverged(diverged.what() + save_last_good(adapter));
  }
}

std::string RunBase::save_last_good(const lora::Adapter& adapter) const {
  if (!saving()) return {};
  for (const auto& parameter : adapter.parameters()) {
    if (!parameter.isfinite().all().item<bool>()) return "; nothing was saved, as no adapter was finite";
  }
  announce_saving();
  const fs::path path = last_good_path(saved_format_);
  try {
    lora::save_adapter(path, adapter, context(), saved_format_);
  } catch (const ConfigError& error) {  // a full disk should not hide what came before
    return std::string("; the last adapter before that could not be saved: ") + error.what();
  }
  return "; the last adapter before that was saved as '" + path.string() + "'";
}

void RunBase::save_adapter(const lora::Adapter& adapter) {
  if (!saving()) return;
  announce_saving();
  const fs::path written = io::temporary_name(adapter_path());  // on a full disk, nothing else has changed
  lora::save_adapter(written, adapter, context(), saved_format_);
  fs::remove(folder_ / kResultsFile);
  fs::remove(folder_ / kPredictionsFile);
  fs::rename(written, adapter_path());
  const bool is_authors = saved_format_ == lora::AdapterFormat::kAuthors;
  fs::remove(saved_path(is_authors ? lora::AdapterFormat::kSafetensors : lora::AdapterFormat::kAuthors));
  for (const auto format : {lora::AdapterFormat::kAuthors, lora::AdapterFormat::kSafetensors})
    fs::remove(last_good_path(format));
  adapter_saved_ = true;
  io::write_atomically(folder_ / "config.json", io::json_text(settings_of(options_), 2) + "\n");
}

void RunBase::announce_saving() const {
  if (observer_ != nullptr && observer_->before_saving) observer_->before_saving();
}

nlohmann::ordered_json RunBase::first_results() const {
  return {{"format", kResultsFormat}, {"command", command_line(options_)}, {"dataset", data_.dataset.name}};
}

void RunBase::add_circumstances(nlohmann::ordered_json& results) {
  if (options_.training.eval_every > 0) seconds_["validation"] = training_.validation_seconds;
  seconds_["total"] = stopwatch_.seconds();
  results["training"] = training_json(training_, training_files_.resumed);
  results["validation"] = validation_json(training_);
  results["missing_images"] = data_.left_out;
  results["seconds"] = seconds_;
  if (processes_ > 1) results["processes"] = processes_;
  results["memory"] = memory_json(device_);
  results["versions"] = {{"clip_lora", kVersion}, {"libtorch", TORCH_VERSION}};
  results["device"] = describe_device(device_) + ", " + precision_name(dtype_);
  results["adapter"] = adapter_path().string();
  results["fingerprint"] = model_.fingerprint;
  results["warnings"] = warnings_;
  results["settings"] = settings_of(options_);
  results["templates"] = templates_;
  results["class_names"] = data_.dataset.class_names;
}

void RunBase::write_results(const nlohmann::ordered_json& results) {
  announce_saving();
  io::write_atomically(folder_ / kResultsFile, readable(results));
  remove_checkpoint(folder_);
  if (quiet()) return;
  const double megabytes = static_cast<double>(fs::file_size(adapter_path())) / 1e6;
  out_ << "saved      " << folder_.string() << "/   " << adapter_path().filename().string() << " "
       << fixed(megabytes, 1) << " MB   " << duration(stopwatch_.seconds()) << " in all" << std::endl;
}

std::string RunBase::what_was_kept() const {
  if (only_trains()) return {};
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

}  // namespace clip_lora::cli
