#include "metrics_log.hpp"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

/// Where a training before this one has its files meanwhile.
fs::path put_aside_path(const fs::path& path) { return path.string() + ".before"; }

/// Makes room for a new `path`. What is put aside already is what counts: of a training that was done.
void put_aside(const fs::path& path) {
  std::error_code ignored;
  if (!fs::exists(put_aside_path(path))) fs::rename(path, put_aside_path(path), ignored);
  fs::remove_all(path, ignored);
}

void forget_put_aside(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(put_aside_path(path), ignored);
}

void bring_back(const fs::path& path) {
  std::error_code ignored;
  fs::remove_all(path, ignored);
  fs::rename(put_aside_path(path), path, ignored);
}

/// The lines of iterations up to `iteration`. What a killed process wrote behind its last checkpoint, or
/// wrote by half, comes again.
std::string lines_until(const fs::path& path, std::int64_t iteration) {
  std::ifstream file(path);
  std::string kept;
  for (std::string line; std::getline(file, line);) {
    const auto json = ordered_json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object() || !json.contains("iteration") || !json["iteration"].is_number_integer()) continue;
    if (json["iteration"].get<std::int64_t>() <= iteration) kept += line + "\n";
  }
  return kept;
}

constexpr const char* kLinesFile = "metrics.jsonl";
constexpr const char* kEventsFolder = "tensorboard";

}  // namespace

MetricsLog::MetricsLog(const fs::path& folder, std::int64_t iteration, bool tensorboard)
    : lines_path_(folder / kLinesFile), events_folder_(folder / kEventsFolder) {
  if (iteration == 0) {
    put_aside(lines_path_);
    put_aside(events_folder_);
  }
  try {
    open_lines(iteration);
    if (tensorboard) events_.emplace(events_folder_, iteration + 1);
  } catch (const ConfigError& error) {
    give_up(error.what());
  }
}

void MetricsLog::open_lines(std::int64_t iteration) {
  io::write_atomically(lines_path_, iteration == 0 ? "" : lines_until(lines_path_, iteration));
  lines_.open(lines_path_, std::ios::app);
  if (!lines_) throw ConfigError("cannot write '" + lines_path_.string() + "': " + std::strerror(errno));
}

void MetricsLog::add(const train::Measurement& measurement) {
  if (!works_) return;
  const ordered_json line = {{"iteration", measurement.iteration},
                             {"epoch", measurement.epoch},
                             {"loss", measurement.loss},
                             {"learning_rate", measurement.learning_rate},
                             {"images_per_second", measurement.images_per_second},
                             {"gradient_norm", measurement.gradient_norm},
                             {"loss_scale", measurement.loss_scale}};
  errno = 0;
  lines_ << io::json_text(line) + "\n";
  if (!lines_.flush()) {
    return give_up("cannot write '" + lines_path_.string() +
                   "': " + (errno != 0 ? std::strerror(errno) : "unknown reason"));
  }
  Scalars scalars;
  for (const auto& [name, value] : line.items()) {
    if (name != "iteration") scalars.emplace_back("training/" + name, value.get<double>());
  }
  add_scalars(measurement.iteration, scalars);
}

void MetricsLog::add_validation(std::int64_t iteration, double accuracy) {
  add_scalars(iteration, {{"validation/accuracy", accuracy}});
}

void MetricsLog::add_scalars(std::int64_t iteration, const Scalars& scalars) {
  if (!works_ || !events_) return;
  try {
    events_->add(iteration, scalars);
  } catch (const ConfigError& error) {
    give_up(error.what());
  }
}

void MetricsLog::give_up(const std::string& reason) {
  works_ = false;
  log_warning("the training's metrics are not written any more: " + reason);
}

void MetricsLog::keep() {
  forget_put_aside(lines_path_);
  forget_put_aside(events_folder_);
}

void MetricsLog::put_back() {
  works_ = false;
  bring_back(lines_path_);
  bring_back(events_folder_);
}

fs::path MetricsLog::lines_of_results(const fs::path& folder) {
  const fs::path put_aside = put_aside_path(folder / kLinesFile);
  std::error_code ignored;
  return fs::exists(put_aside, ignored) ? put_aside : folder / kLinesFile;
}

void MetricsLog::remove(const fs::path& folder) {
  std::error_code ignored;
  fs::remove(folder / kLinesFile, ignored);
  fs::remove_all(folder / kEventsFolder, ignored);
  forget_put_aside(folder / kLinesFile);  // of a training that was killed
  forget_put_aside(folder / kEventsFolder);
}

}  // namespace clip_lora::cli
