#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"
#include "saved_run.hpp"
#include "sweep_plan.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// Flags that change where and how a run is done and what it leaves behind, but not what comes out.
constexpr std::array kOfNoConsequence = {"root_path",   "image_memory",    "workers",   "cache_dir",
                                         "checkpoint",  "save_path",       "device",    "verbose",
                                         "quiet",       "resume",          "log_every", "checkpoint_every",
                                         "tensorboard", "save_predictions"};

/// Flags whose values are the adapter's that a run goes on from.
constexpr std::array kOfAdapters = {
    "encoder",      "position",           "params",           "r", "alpha", "adapter_rank",
    "adapter_drop", "adapter_init_scale", "adapter_drop_unit"};

template <typename Names>
bool is_among(const Names& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// "--r is 4, and was 2", of all flags that matter; empty: none differs. A flag that an older version did not
/// know had the default.
std::vector<std::string> differences(const PlannedRun& run, const ordered_json& results) {
  RunOptions options = run.run.options;
  options.model.backbone = run.backbone;
  const ordered_json wanted = settings_of(options);
  const ordered_json& defaults = default_settings();
  const ordered_json saved = results.value("settings", ordered_json::object());
  std::vector<std::string> found;
  for (const auto& [key, value] : wanted.items()) {
    const bool is_adapters = is_among(kOfAdapters, key) && !run.run.options.output.adapter.empty();
    if (is_among(kOfNoConsequence, key) || is_adapters) continue;
    const ordered_json there = saved.value(key, defaults.at(key));
    if (there != value)
      found.push_back("--" + key + " is " + io::brief(value) + ", and was " + io::brief(there));
  }
  const fs::path predictions = run.folder / kPredictionsFile;
  if (options.output.save_predictions && !fs::exists(predictions))
    found.push_back("--save_predictions is true, and '" + predictions.string() + "' is missing");
  const std::string fingerprint = results.value("fingerprint", run.fingerprint);
  if (fingerprint != run.fingerprint) found.push_back("the checkpoint holds other weights");
  return found;
}

}  // namespace

RunState state_of(const PlannedRun& run, std::string& reason) {
  const fs::path file = run.folder / kResultsFile;
  const std::string source = "results '" + file.string() + "': ";
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return RunState::kToDo;
  try {
    const auto results = io::read_json_object<ordered_json>(file, source);
    const ordered_json format = results.value("format", ordered_json());
    if (format != kResultsFormat) {
      reason = source + "another version of clip_lora wrote it (format " + io::brief(format) + ", expected " +
               std::to_string(kResultsFormat) + ")";
      return RunState::kOtherSettings;
    }
    const auto found = differences(run, results);
    if (found.empty()) return RunState::kDone;
    reason = source + join_capped(found);
    return RunState::kOtherSettings;
  } catch (const CheckpointError& error) {  // what the reader takes every bad JSON for
    reason = error.what();
  } catch (const ordered_json::exception& error) {
    reason = source + error.what();
  }
  return RunState::kDamaged;
}

}  // namespace clip_lora::cli
