#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/train/metrics.hpp"
#include "clip_lora/train/statistics.hpp"

namespace clip_lora::cli {

inline constexpr const char* kResultsFile = "results.json";
inline constexpr const char* kPredictionsFile = "predictions.csv";

/// Of results.json: what other versions of this program write has another one.
inline constexpr int kResultsFormat = 1;

/// Stands for `--shots all`, so that it sorts behind every number.
inline constexpr std::int64_t kAllShots = std::numeric_limits<std::int64_t>::max();

/// "16", or "all".
std::string shots_name(std::int64_t shots);

/// What an interrupted training had done before its last part.
struct ResumedFrom {
  std::int64_t iteration = 0;
  std::int64_t images = 0;  ///< seen
};

// --protocol and --method of runs whose version knew no others.
inline constexpr const char* kAllClasses = "all";
inline constexpr const char* kLora = "lora";

/// Stands for the data sets beside a run's own, as what they were tested on in the mean.
inline constexpr const char* kMeanOfOthers = "mean_of_others";

/// One of the figures of a run; all are percent.
struct Measure {
  /// As results.json has it: "accuracy", "new_classes_accuracy", "harmonic_mean", "image_to_text.at_1", …
  std::string name = "accuracy";
  std::string tested_on;        ///< another data set, kMeanOfOthers, or "" for the run's own
  std::optional<double> scale;  ///< an --eval_scale, 0 the untouched model; nothing: the run's first
};

/// A run as its results.json tells. Accuracies are percent.
struct SavedRun {
  std::filesystem::path folder;
  std::string name;  ///< its folder below the one that was searched
  std::string dataset;
  std::size_t test_set = 0;  ///< a hash of its classes and of how many test pictures each has
  std::string method;
  std::string protocol;
  std::string backbone;
  std::string fingerprint;  ///< of the backbone's weights; "" if it was not saved
  std::int64_t shots = 0;   ///< or kAllShots
  std::int64_t seed = 0;
  double zero_shot_accuracy = 0;  ///< without meaning of retrieval, as the next
  double accuracy = 0;            ///< at `eval_scale`
  std::optional<double> top5_accuracy, macro_f1, expected_calibration_error;
  double eval_scale = 1.0;  ///< the first
  /// By tested_on, name and scale, as in Measure. Of two figures of scale 0 the first, the zero-shot line's.
  std::map<std::tuple<std::string, std::string, double>, double> measured;
  std::vector<std::string> others;  ///< data sets that it was tested on beside its own
  std::int64_t iterations = 0;
  std::int64_t images = 0;                    ///< per epoch
  std::int64_t images_seen = 0;               ///< in all
  std::optional<ResumedFrom> resumed_from;    ///< then the times are those of the last part
  std::optional<double> loss;                 ///< the last; nothing if it was not finite
  std::vector<train::CurvePoint> validation;  ///< iteration, accuracy
  nlohmann::ordered_json seconds;             ///< by phase
  std::optional<std::int64_t> peak_gpu_bytes;
  std::optional<std::int64_t> peak_resident_bytes;
  std::string device;
  std::string version;  ///< of clip_lora
  std::string command;
  nlohmann::ordered_json settings;
  std::vector<std::string> warnings;

  bool is_retrieval() const;  ///< then it has recall and no accuracy
  /// A figure; nothing if the run has none of the kind.
  std::optional<double> measure(const Measure& measure) const;
  /// The scales at which it has a figure of that name, ascending.
  std::set<double> scales(const std::string& measure_name, const std::string& tested_on) const;
  /// Seconds of a phase; nothing if the run had none of the name.
  std::optional<double> seconds_of(const std::string& phase) const;
  /// Of training, of its last part if it was resumed; nothing if no time was taken.
  std::optional<double> images_per_second() const;
};

/// A run's results class by class.
struct ClassResults {
  struct OfClass {
    std::string name;
    std::int64_t total = 0;
    std::int64_t correct = 0;
    std::optional<double> accuracy;            ///< percent; nothing for a class without pictures
    std::optional<double> zero_shot_accuracy;  ///< the same of the untouched model
  };
  std::vector<OfClass> classes;             ///< by label
  std::vector<train::Confusion> confusion;  ///< of the adapted model, without zeros
};

/// Whether runs that differ in `setting` are different experiments: false for what only says which data set,
/// seed, and so on, and for what cannot change an accuracy, such as workers.
bool may_change_accuracy(const std::string& setting);

/// A setting's value, for comparisons between machines: a checkpoint counts by its weights' fingerprint, or
/// by its file's name where that was not saved.
nlohmann::ordered_json comparable_setting(const SavedRun& run, const std::string& setting);

/// Puts what `results` (a results.json) has measured at its scales, on other data sets and of recall into
/// `run`. Throws nlohmann's exceptions for a key of another type.
void read_measures(const nlohmann::ordered_json& results, SavedRun& run);

/// Reads a results.json; `name` as in SavedRun. Throws DataError for a file that is missing, broken, of
/// another format, or lacks what it should have.
SavedRun read_saved_run(const std::filesystem::path& file, const std::string& name);

/// Reads the part of `run`'s results that is large. Throws as read_saved_run.
ClassResults read_class_results(const SavedRun& run);

/// What lies in a tree of results.
struct SavedRuns {
  std::vector<SavedRun> runs;  ///< by their names; data sets of one name have longer ones
  /// A line for each file or folder that could not be read, and for each copy of a run.
  std::vector<std::string> skipped;
  std::vector<std::string> failed;  ///< a line for each run of a sweep that left its error instead of results
};

/// Every results.json below `folder`, hidden folders and symbolic links to folders left out. Throws DataError
/// if there is no such folder.
SavedRuns find_saved_runs(const std::filesystem::path& folder);

}  // namespace clip_lora::cli
