#include "saved_run.hpp"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <system_error>
#include <type_traits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"
#include "sweep_failure.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// What places a run in a table, and what changes nothing of its accuracy.
const std::set<std::string> kNoVariant = {
    "dataset",          "shots",        "seed",         "backbone",
    "method",           "protocol",     "root_path",    "save_path",
    "filename",         "skip_missing", "image_memory", "workers",
    "cache_dir",        "device",       "verbose",      "quiet",
    "save_predictions", "eval_only",    "eval_every",   "checkpoint_every",
    "resume",           "log_every",    "tensorboard",  "variant"};

std::string source_of(const fs::path& file) { return "results '" + file.string() + "': "; }

ordered_json read_results(const fs::path& file) {
  const std::string source = source_of(file);
  ordered_json results;
  try {
    results = io::read_json_object<ordered_json>(file, source);
  } catch (const CheckpointError& error) {  // what the reader takes every bad JSON for
    throw DataError(error.what());
  }
  const ordered_json format = results.value("format", ordered_json());
  if (format != kResultsFormat) {
    throw DataError(source + "format " + (format.is_null() ? "is not given" : io::brief(format)) +
                    ", expected " + std::to_string(kResultsFormat) +
                    " (hint: another version of clip_lora wrote it)");
  }
  return results;
}

/// reading(), whose error about a key or its type becomes a DataError that names the file.
template <typename Reading>
auto naming(const fs::path& file, const Reading& reading) {
  try {
    return reading();
  } catch (const ordered_json::exception& error) {
    throw DataError(source_of(file) + error.what());
  }
}

/// Of get<std::int64_t>(), a fraction or 1e300 would come out as some integer.
std::int64_t integer(const ordered_json& value) {
  return value.get_ref<const ordered_json::number_integer_t&>();
}

template <typename T>
std::optional<T> optional_at(const ordered_json& object, const char* key) {
  const auto entry = object.find(key);
  if (entry == object.end() || entry->is_null()) return std::nullopt;
  if constexpr (std::is_same_v<T, std::int64_t>) return integer(*entry);
  return entry->get<T>();
}

std::int64_t read_shots(const ordered_json& shots) { return shots.is_string() ? kAllShots : integer(shots); }

std::optional<ResumedFrom> read_resumed(const ordered_json& training) {
  const auto entry = training.find("resumed_from");
  if (entry == training.end() || entry->is_null()) return std::nullopt;
  return ResumedFrom{integer(entry->at("iteration")), integer(entry->at("images"))};
}

std::size_t hash_of_test_set(const ordered_json& results) {
  std::string text;
  if (const auto retrieval = results.find("retrieval"); retrieval != results.end())
    text = io::json_text(retrieval->at("images")) + " " + io::json_text(retrieval->at("captions"));
  for (const auto& entry : results.value("per_class", ordered_json::array()))
    text += io::json_text(entry.at("name")) + io::json_text(entry.at("total"));
  return std::hash<std::string>{}(text);
}

void read_accuracies(const ordered_json& results, SavedRun& run) {
  results.at("zero_shot_accuracy").get_to(run.zero_shot_accuracy);
  results.at("accuracy").get_to(run.accuracy);
  run.top5_accuracy = optional_at<double>(results, "top5_accuracy");
  run.macro_f1 = optional_at<double>(results, "macro_f1");
  run.expected_calibration_error = optional_at<double>(results, "expected_calibration_error");
}

SavedRun read_fields(const ordered_json& results, const fs::path& file, const std::string& name) {
  const ordered_json& settings = results.at("settings");
  const ordered_json& training = results.at("training");
  SavedRun run;
  run.folder = file.parent_path();
  run.name = name;
  results.at("dataset").get_to(run.dataset);
  run.test_set = hash_of_test_set(results);
  run.fingerprint = results.value("fingerprint", "");
  settings.at("backbone").get_to(run.backbone);
  run.shots = read_shots(settings.at("shots"));
  run.seed = integer(settings.at("seed"));
  run.method = settings.value("method", kLora);
  run.protocol = settings.value("protocol", kAllClasses);
  if (results.contains("retrieval")) {
    run.protocol = kRetrieval;
  } else {
    read_accuracies(results, run);
  }
  read_measures(results, run);
  run.iterations = integer(training.at("iterations"));
  run.images = integer(training.at("images"));
  run.images_seen = integer(training.at("images_seen"));
  run.resumed_from = read_resumed(training);
  run.loss = optional_at<double>(training, "loss");
  for (const auto& look : results.at("validation")) {
    run.validation.push_back({look.at("iteration").get<double>(), look.at("accuracy").get<double>()});
  }
  run.seconds = results.at("seconds");
  run.peak_gpu_bytes = optional_at<std::int64_t>(results.at("memory"), "peak_gpu_bytes");
  run.peak_resident_bytes = optional_at<std::int64_t>(results.at("memory"), "peak_resident_bytes");
  results.at("device").get_to(run.device);
  results.at("versions").at("clip_lora").get_to(run.version);
  results.at("command").get_to(run.command);
  run.settings = settings;
  results.at("warnings").get_to(run.warnings);
  return run;
}

/// The same run in two folders, e.g. a copy: only one may count. Of a run that was done again at least the
/// times differ.
bool is_same_run(const SavedRun& a, const SavedRun& b) {
  if (a.dataset != b.dataset || a.backbone != b.backbone || a.shots != b.shots || a.seed != b.seed)
    return false;
  if (a.method != b.method || a.protocol != b.protocol || a.measured != b.measured) return false;
  if (a.accuracy != b.accuracy || a.loss != b.loss || a.seconds != b.seconds || a.test_set != b.test_set)
    return false;
  const auto has_same = [&](const SavedRun& one, const SavedRun& other) {
    const auto names = one.settings.items();
    return std::all_of(names.begin(), names.end(), [&](const auto& setting) {
      return !may_change_accuracy(setting.key()) ||
             comparable_setting(one, setting.key()) == comparable_setting(other, setting.key());
    });
  };
  return has_same(a, b) && has_same(b, a);
}

void leave_out_copies(SavedRuns& found) {
  std::vector<SavedRun> once;
  for (auto& run : found.runs) {
    const auto original = std::find_if(once.begin(), once.end(),
                                       [&](const SavedRun& other) { return is_same_run(run, other); });
    if (original == once.end()) {
      once.push_back(std::move(run));
    } else {
      found.skipped.push_back(source_of(run.folder / kResultsFile) + "the same run as '" +
                              original->folder.string() + "'");
    }
  }
  found.runs = std::move(once);
}

/// Different own data may have the same name, which is that of a folder or a file: then --dataset, which says
/// where they lie, takes its place.
void tell_datasets_apart(std::vector<SavedRun>& runs) {
  struct Namesakes {
    std::set<std::size_t> test_sets;
    std::set<std::string> paths;
  };
  const auto path_of = [](const SavedRun& run) {
    const auto given = run.settings.find("dataset");
    const bool is_text = given != run.settings.end() && given->is_string();
    return fs::path(is_text ? given->get<std::string>() : run.dataset).lexically_normal().string();
  };
  std::map<std::pair<std::string, std::string>, Namesakes> by_name;  // and protocol: it chooses the classes
  for (const auto& run : runs) {
    Namesakes& namesakes = by_name[{run.dataset, run.protocol}];
    namesakes.test_sets.insert(run.test_set);
    namesakes.paths.insert(path_of(run));
  }
  for (auto& run : runs) {
    const Namesakes& namesakes = by_name.at({run.dataset, run.protocol});
    if (namesakes.test_sets.size() > 1 && namesakes.paths.size() > 1) run.dataset = path_of(run);
  }
}

/// "vitb16/eurosat/4shots/seed1: why".
std::string read_failure(const fs::path& file, const std::string& name) {
  try {
    return name + ": " + io::read_json_object(file, "").value("error", "the reason is not recorded");
  } catch (const std::exception& error) {
    return name + ": " + error.what();
  }
}

/// The files of a tree that a report is made of.
struct FoundFiles {
  std::vector<fs::path> results, failures;
  std::vector<std::string> unread;  ///< a line for each path that could not be read, or not to its end

  /// What has vanished, as happens while a sweep runs, is no error.
  void note(const fs::path& path, const std::error_code& error) {
    if (error && error != std::errc::no_such_file_or_directory)
      unread.push_back("'" + path.string() + "': " + error.message());
  }
};

/// Adds what lies below `folder`, in the order of the paths. What goes wrong in one folder leaves the others
/// as they are.
void find_files(const fs::path& folder, FoundFiles& found) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    paths.push_back(entry->path());
  }
  found.note(folder, error);
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths) {
    const std::string name = path.filename().string();
    const bool is_folder = fs::is_directory(fs::symlink_status(path, error));
    found.note(path, error);
    if (is_folder) {
      if (!name.starts_with('.')) find_files(path, found);
    } else if (name == kResultsFile) {
      found.results.push_back(path);
    } else if (name == kFailureFile) {
      found.failures.push_back(path);
    }
  }
}

}  // namespace

std::string shots_name(std::int64_t shots) { return shots == kAllShots ? "all" : std::to_string(shots); }

bool may_change_accuracy(const std::string& setting) { return !kNoVariant.contains(setting); }

ordered_json comparable_setting(const SavedRun& run, const std::string& setting) {
  ordered_json value = run.settings.value(setting, default_settings().value(setting, ordered_json()));
  if (setting == "eval_scale" && value.is_array() && !value.empty()) return value.front();
  if (setting != "checkpoint") return value;
  if (!run.fingerprint.empty()) return run.fingerprint;
  if (!value.is_string()) return value;
  return fs::path(value.get<std::string>()).filename().string();
}

bool SavedRun::is_retrieval() const { return protocol == kRetrieval; }

std::optional<double> SavedRun::measure(const Measure& asked) const {
  const auto found = measured.find({asked.tested_on, asked.name, asked.scale.value_or(eval_scale)});
  return found == measured.end() ? std::nullopt : std::optional(found->second);
}

std::set<double> SavedRun::scales(const std::string& measure_name, const std::string& tested_on) const {
  std::set<double> scales;
  for (const auto& [of, value] : measured) {
    if (std::get<0>(of) == tested_on && std::get<1>(of) == measure_name) scales.insert(std::get<2>(of));
  }
  return scales;
}

std::optional<double> SavedRun::seconds_of(const std::string& phase) const {
  const auto entry = seconds.find(phase);
  if (entry == seconds.end() || !entry->is_number()) return std::nullopt;
  return entry->get<double>();
}

std::optional<double> SavedRun::images_per_second() const {
  const auto training = seconds_of("training");
  if (!training || *training <= 0.0) return std::nullopt;
  const double before = resumed_from ? static_cast<double>(resumed_from->images) : 0.0;
  const double seen = static_cast<double>(images_seen) - before;
  return seen > 0.0 ? std::optional(seen / *training) : std::nullopt;
}

SavedRun read_saved_run(const fs::path& file, const std::string& name) {
  const ordered_json results = read_results(file);
  return naming(file, [&] { return read_fields(results, file, name); });
}

ClassResults read_class_results(const SavedRun& run) {
  const fs::path file = run.folder / kResultsFile;
  const ordered_json results = read_results(file);
  return naming(file, [&] {
    ClassResults found;
    const ordered_json& untouched = results.at("zero_shot").at("per_class");
    for (const auto& entry : results.at("per_class")) {
      const ordered_json& before = untouched.at(found.classes.size());
      found.classes.push_back({entry.at("name").get<std::string>(), integer(entry.at("total")),
                               integer(entry.at("correct")), optional_at<double>(entry, "accuracy"),
                               optional_at<double>(before, "accuracy")});
    }
    const auto classes = static_cast<std::int64_t>(found.classes.size());
    for (const auto& entry : results.at("confusion")) {
      const train::Confusion count = {integer(entry.at(0)), integer(entry.at(1)), integer(entry.at(2))};
      if (std::min(count.label, count.predicted) < 0 || std::max(count.label, count.predicted) >= classes)
        throw DataError(source_of(file) + "confusion: " + io::brief(entry) + " names no class");
      found.confusion.push_back(count);
    }
    return found;
  });
}

SavedRuns find_saved_runs(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored))
    throw DataError("'" + folder.string() + "': there is no such folder");
  SavedRuns found;
  const auto name_of = [&](const fs::path& file) {
    return file.parent_path().lexically_relative(folder).string();
  };
  FoundFiles files;
  find_files(folder, files);
  found.skipped = files.unread;
  for (const auto& file : files.results) {
    try {
      found.runs.push_back(read_saved_run(file, name_of(file)));
    } catch (const DataError& error) {
      found.skipped.emplace_back(error.what());
    }
  }
  leave_out_copies(found);
  tell_datasets_apart(found.runs);
  for (const auto& file : files.failures) {
    if (!fs::exists(file.parent_path() / kResultsFile, ignored))
      found.failed.push_back(read_failure(file, name_of(file)));
  }
  return found;
}

}  // namespace clip_lora::cli
