#include "sweep_plan.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <system_error>
#include <tuple>
#include <utility>

#include "clip_lora/cli/console.hpp"
#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"
#include "clip_lora/io/lease.hpp"
#include "clip_lora/lora/method.hpp"
#include "clip_lora/train/cost.hpp"
#include "run_session.hpp"
#include "saved_run.hpp"
#include "sweep_failure.hpp"
#include "training_files.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kBytesOfResults = 64 << 10;  // beside the adapter
constexpr std::uint64_t kBytesPerPrediction = 200;
constexpr std::uint64_t kAdaptersPerCheckpoint = 5;  // itself, two moments, the average, the best one
constexpr double kUsualEfficiency = 0.25;            // of the device's large products; a first guess

/// A line for each: its name and what is wrong with it.
std::string lines_of(const std::map<std::string, std::string>& problems) {
  std::string text;
  for (const auto& [name, problem] : problems) text += (text.empty() ? "" : "\n") + name + ": " + problem;
  return text;
}

std::vector<std::string> names_of(const std::map<std::string, std::string>& problems) {
  std::vector<std::string> names;
  for (const auto& [name, problem] : problems) names.push_back(name);
  return names;
}

/// The images of a results.json, of all data sets.
std::int64_t tested_images(const nlohmann::json& results) {
  if (results.contains("retrieval")) return results.at("retrieval").at("images").get<std::int64_t>();
  std::int64_t images = 0;
  for (const auto& of_class : results.at("per_class")) images += of_class.at("total").get<std::int64_t>();
  if (results.contains("other_datasets")) {
    for (const auto& other : results.at("other_datasets")) images += other.at("images").get<std::int64_t>();
  }
  return images;
}

/// What the plan has to know of a checkpoint.
struct ModelFacts {
  std::string backbone;
  std::string fingerprint;
  model::ClipArchitecture architecture;
};

/// Makes a plan. Its steps are methods that fill in the plan one after the other.
class Planner {
 public:
  Planner(const SweepOptions& options, RunSession* session)
      : options_(options),
        save_path_(options.run.output.save_path),
        own_session_(session == nullptr ? std::make_unique<RunSession>() : nullptr),
        kept_((session == nullptr ? *own_session_ : *session).kept()) {}

  SweepPlan make() {
    io::require_writable(save_path_);
    io::remove_temporaries(save_path_, io::Abandoned::kOfTheDead);
    for (auto& run : part_of(expand_grid(options_), options_.part)) {
      plan_.runs.emplace_back().run = std::move(run);
    }
    look_at_models();
    require_different_folders();
    look_at_folders();
    look_at_data();
    estimate_time();
    plan_.free_bytes = require_space(save_path_, plan_.bytes);
    return std::move(plan_);
  }

 private:
  using ModelKey = std::tuple<std::string, std::string, std::string>;

  /// From the last run to the first, so that what the first one needs is what is loaded in the end.
  void look_at_models() {
    for (auto run = plan_.runs.rbegin(); run != plan_.runs.rend(); ++run) {
      const ModelFacts& facts = facts_of(run->run.options);
      run->backbone = facts.backbone;
      run->fingerprint = facts.fingerprint;
      RunOptions named = run->run.options;
      named.model.backbone = facts.backbone;
      run->folder = named.result_folder(dataset_name(named));
    }
  }

  std::string dataset_name(const RunOptions& options) {
    const std::string& asked = options.data.dataset;
    const data::Benchmark* const benchmark = data::find_benchmark(asked);
    if (options.data.protocol != kRetrieval)
      return benchmark != nullptr ? benchmark->name : data::own_dataset_name(asked);
    try {
      return kept_.captions.load(options).run.dataset.name;  // a file of captions may say it
    } catch (const DataError&) {                             // which look_at_data() meets again
      return data::own_dataset_name(asked);
    }
  }

  const ModelFacts& facts_of(RunOptions options) {
    const ModelKey key = {options.model.backbone, options.model.checkpoint, options.model.activation};
    if (!facts_.contains(key)) {
      if (own_session_) {
        options.compute.device = "cpu";
        options.compute.precision = "fp32";
      }
      const Model& model = kept_.model(options);
      require_clip_vocabulary(model);
      facts_[key] = {model.backbone, model.fingerprint, model.loaded.clip->architecture()};
      clip_ = model.loaded.clip;
    }
    const ModelFacts& facts = facts_.at(key);
    require_possible_adapter(options, facts);
    return facts;
  }

  /// Makes one to see. Runs of a model come together, so that it is at hand. Throws ConfigError.
  void require_possible_adapter(const RunOptions& options, const ModelFacts& facts) {
    if (!options.output.adapter.empty()) return;  // its file decides
    const lora::AdapterOptions& adapter = options.adapter;
    std::string key = facts.fingerprint;
    for (const auto& [flag, value] : lora::find_method(adapter.method).settings(adapter))
      key += " " + flag + value;
    if (!tried_adapters_.insert(key).second) return;
    const auto parameters = lora::make_adapter(clip_, adapter)->parameter_count();
    largest_adapter_ = std::max(largest_adapter_, static_cast<std::uint64_t>(parameters) * sizeof(float));
  }

  void require_different_folders() const {
    std::set<fs::path> folders;
    for (const auto& run : plan_.runs) {
      if (folders.insert(run.folder).second) continue;
      throw ConfigError("two runs of the sweep have the folder '" + run.folder.string() +
                        "' (hint: is a backbone or a data set given twice?)");
    }
  }

  /// What is done, what is damaged, what is of other settings.
  void look_at_folders() {
    std::vector<std::string> others;
    for (auto& run : plan_.runs) {
      std::string reason;
      const RunState state = state_of(run, reason);
      run.is_done = state == RunState::kDone;
      run.failure = recorded_failure(run.folder);
      if (run.is_done) remove_leftovers(run);
      if (state == RunState::kDamaged) plan_.notes.push_back(reason + " (the run is done again)");
      if (state == RunState::kOtherSettings) others.push_back(reason);
    }
    if (others.empty() || options_.force) return;
    throw ConfigError(
        others.front() +
        (others.size() == 1 ? "" : "\n(and " + std::to_string(others.size() - 1) + " more like it)") +
        " (hint: another --save_path, or --force to do such runs again)");
  }

  /// Loads every data set that is needed, and looks for the images of every run. Like look_at_models() from
  /// the last to the first.
  void look_at_data() {
    std::map<std::string, std::string> missing, broken;  // by data set, what is wrong
    for (auto run = plan_.runs.rbegin(); run != plan_.runs.rend(); ++run) {
      const std::string& dataset = run->run.options.data.dataset;
      if (run->is_done || missing.contains(dataset) || broken.contains(dataset)) continue;
      try {
        look_at_data_of(*run);
      } catch (const data::MissingData& error) {
        missing[dataset] = error.what();
      } catch (const DataError& error) {
        broken[dataset] = error.what();
      }
    }
    if (!options_.skip_missing && !missing.empty()) {
      broken.insert(missing.begin(), missing.end());
      throw DataError(lines_of(broken) + "\n(hint: --skip_missing leaves out " +
                      join_capped(names_of(missing)) + ")");
    }
    if (!broken.empty()) throw DataError(lines_of(broken));
    if (!missing.empty()) leave_out(missing);
  }

  void leave_out(const std::map<std::string, std::string>& missing) {
    std::erase_if(plan_.runs, [&](const auto& run) {
      return !run.is_done && missing.contains(run.run.options.data.dataset);
    });
    if (plan_.runs.empty()) throw DataError(lines_of(missing) + "\n(no data set is left)");
    plan_.notes.push_back("left out " + lines_of(missing));
  }

  void look_at_data_of(PlannedRun& run) {
    const RunOptions& options = run.run.options;
    if (options.data.protocol == kRetrieval) {
      const RunData& data = kept_.captions.load(options).run;
      return look_at(run, data, std::ssize(data.test));
    }
    const RunData data = kept_.dataset.load(options);
    const OtherDatasets others = kept_.other_datasets.load(options, data.dataset.class_names.size());
    std::int64_t test_images = std::ssize(data.test);
    for (const auto& other : others.datasets) test_images += std::ssize(other->test);
    look_at(run, data, test_images);
    for (const auto& warning : others.warnings) note(warning);
  }

  /// `test_images`: of all data sets that it is tested on.
  void look_at(PlannedRun& run, const RunData& data, std::int64_t test_images) {
    const RunOptions& options = run.run.options;
    if (trains_anything(options)) run.iterations = options.iterations(std::ssize(data.train));
    operations_ += operations_of(options, run.iterations, std::ssize(data.dataset.class_names), test_images);
    plan_.bytes += largest_adapter_ + kBytesOfResults;
    if (options.output.save_predictions) plan_.bytes += data.test.size() * kBytesPerPrediction;
    if (options.output.checkpoint_every > 0) checkpoint_bytes_ = largest_adapter_ * kAdaptersPerCheckpoint;
    for (const auto& warning : data.warnings) note(data.dataset.name + ": " + warning);
  }

  void note(const std::string& text) {
    if (std::find(plan_.notes.begin(), plan_.notes.end(), text) == plan_.notes.end())
      plan_.notes.push_back(text);
  }

  /// `classes`: none where an iteration has a caption for each of its images instead.
  double operations_of(const RunOptions& options, std::int64_t iterations, std::int64_t classes,
                       std::int64_t test_images) const {
    const std::int64_t batch = options.training.batch_size;
    const auto& model = options.model;
    const ModelFacts& facts = facts_.at({model.backbone, model.checkpoint, model.activation});
    return train::estimated_operations(facts.architecture,
                                       {iterations, batch, classes > 0 ? classes : batch, test_images});
  }

  /// From runs that were done on such a device, or else from what it can multiply in a second.
  void estimate_time() {
    plan_.bytes += checkpoint_bytes_;
    const bool is_done_elsewhere = options_.print_runs || options_.slurm.write_script;  // on other devices
    if (plan_.runs.empty() || is_done_elsewhere) return;
    const RunOptions& options = plan_.runs.front().run.options;
    const at::Device device = parse_device(options.compute.device);
    const at::ScalarType type = parse_precision(options.compute.precision, device);
    const std::string name = describe_device(device) + ", " + precision_name(type);
    double seconds = 0.0, operations = 0.0;
    for (const auto& run : plan_.runs) {
      if (run.is_done) add_finished(run, name, seconds, operations);
    }
    if (plan_.finished_runs > 0) {
      plan_.seconds = operations_ * seconds / operations;
    } else if (!own_session_ && operations_ > 0.0) {
      plan_.seconds = operations_ / (kUsualEfficiency * train::measure_operations_per_second(device, type));
    }
  }

  /// What cannot be read of the results has no part in the estimate.
  void add_finished(const PlannedRun& run, const std::string& device, double& seconds, double& operations) {
    try {
      const auto results = io::read_json_object(run.folder / kResultsFile, "");
      if (results.at("device") != device) return;
      const auto& phases = results.at("seconds");
      double of_run = 0.0;
      for (const char* phase : {"zero_shot", "training", "evaluation", "other_datasets"})
        of_run += phases.value(phase, 0.0);
      operations +=
          operations_of(run.run.options, results.at("training").at("iterations").get<std::int64_t>(),
                        static_cast<std::int64_t>(results.at("class_names").size()), tested_images(results));
      seconds += of_run;
      ++plan_.finished_runs;
    } catch (const nlohmann::json::exception&) {
    }
  }

  const SweepOptions& options_;
  const fs::path save_path_;
  std::unique_ptr<RunSession> own_session_;  // without one of the caller's
  RunSession::Kept& kept_;
  SweepPlan plan_;
  std::map<ModelKey, ModelFacts> facts_;
  model::Clip clip_{nullptr};  // that was loaded last
  std::set<std::string> tried_adapters_;
  std::uint64_t largest_adapter_ = 0;  // bytes
  std::uint64_t checkpoint_bytes_ = 0;
  double operations_ = 0.0;  // of what is to be done
};

}  // namespace

std::size_t SweepPlan::count_to_do() const {
  return static_cast<std::size_t>(
      std::count_if(runs.begin(), runs.end(), [](const auto& run) { return !run.is_done; }));
}

std::int64_t SweepPlan::iterations_to_do() const {
  std::int64_t sum = 0;
  for (const auto& run : runs) sum += run.is_done ? 0 : run.iterations;
  return sum;
}

void remove_leftovers(const PlannedRun& run) {
  io::remove_lease(run.lease());
  remove_checkpoint(run.folder);
  io::remove_temporaries(run.folder, io::Abandoned::kOfAllButLive);
}

SweepPlan make_plan(const SweepOptions& options, RunSession* session) {
  return Planner(options, session).make();
}

std::uint64_t require_space(const fs::path& folder, std::uint64_t bytes) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error) throw ConfigError("cannot look at the disk of '" + folder.string() + "': " + error.message());
  if (space.available >= bytes) return space.available;
  throw ConfigError("the disk of '" + folder.string() + "' has " + megabytes(space.available) + " free, " +
                    megabytes(bytes) + " are needed");
}

std::string megabytes(std::uint64_t bytes) {
  const double number = static_cast<double>(bytes);
  return number < 1e10 ? fixed(number / 1e6, 1) + " MB" : fixed(number / 1e9, 0) + " GB";
}

}  // namespace clip_lora::cli
