#define XXH_INLINE_ALL
#include "training_files.hpp"

#include <xxhash.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "clip_lora/core/device.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/io/json_text.hpp"
#include "command_line.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// Flags that have no part in which adapter comes out, or whose meaning is in what was found on the disk.
bool is_told_otherwise(const std::string& flag) {
  static const std::set<std::string> kFlags = {
      "dataset",   "root_path",   "class_names", "allow_missing", "template",         "templates",
      "exif",      "resize_mode", "backbone",    "checkpoint",    "image_memory",     "workers",
      "cache_dir", "save_path",   "filename",    "eval_only",     "save_predictions", "checkpoint_every",
      "resume",    "log_every",   "tensorboard", "device",        "precision",        "zero_shot_templates",
      "verbose",   "quiet",       "variant",     "eval_scale",    "skip_missing"};
  return kFlags.contains(flag);
}

/// JSON, of a string without quotation marks, as UTF-8: a checkpoint's metadata have no other bytes.
std::string text_of(const nlohmann::ordered_json& value) {
  const std::string text = io::json_text(value);
  return value.is_string() ? text.substr(1, text.size() - 2) : text;
}

/// "0123456789abcdef".
std::string hash_of(const std::string& text) {
  XXH64_canonical_t hash;
  XXH64_canonicalFromHash(&hash, XXH3_64bits(text.data(), text.size()));
  std::string digits;
  for (const unsigned char byte : hash.digest) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    digits += {kDigits[byte >> 4], kDigits[byte & 15]};
  }
  return digits;
}

/// "3 pictures, 0123456789abcdef": of labels and file names, as the folders above may be moved.
std::string pictures_summary(const std::vector<data::Item>& items) {
  std::string text;
  for (const auto& item : items) {
    text += std::to_string(item.label) + "/" + fs::path(item.image).filename().string() + "\n";
  }
  return std::to_string(items.size()) + " pictures, " + hash_of(text);
}

train::TrainingCheckpoint read(const fs::path& path) {
  try {
    return train::read_checkpoint(path);
  } catch (const CheckpointError& error) {
    throw UnreadableCheckpoint(std::string("--resume: ") + error.what() +
                               " (hint: without --resume the training begins anew)");
  }
}

void require_settings(const train::TrainingSettings& saved, const train::TrainingSettings& settings,
                      const fs::path& path) {
  try {
    train::require_settings(saved, settings, path);
  } catch (const CheckpointError& error) {
    throw OtherTrainingsCheckpoint(error.what());
  }
}

}  // namespace

train::TrainingSettings training_settings(const RunOptions& options, const lora::AdapterContext& context,
                                          at::ScalarType precision, const RunData& data) {
  train::TrainingSettings settings;
  const auto flags = settings_of(options);
  for (const auto& [name, value] : flags.items()) {
    if (is_told_otherwise(name)) continue;
    settings["--" + name] = text_of(value);
  }
  settings["--precision"] = precision_name(precision);
  settings["backbone"] = context.backbone_fingerprint;
  settings["data set"] = text_of(context.dataset);
  settings["class names"] = text_of(context.class_names);
  settings["templates"] = text_of(context.templates);
  settings["preprocessing"] = text_of(context.preprocessing);
  settings["training images"] = pictures_summary(data.train);
  if (!data.captions.empty()) settings["captions"] = hash_of(text_of(data.captions));
  return settings;
}

TrainingFiles open_training_files(const RunOptions& options, const fs::path& folder,
                                  train::TrainingSettings settings) {
  TrainingFiles files{folder, std::move(settings), {}};
  const fs::path path = files.checkpoint();
  if (!fs::exists(path)) return files;
  if (!options.output.resume) {
    log_warning("the training begins anew, although '" + path.string() +
                "' is there to go on from (hint: --resume)");
    return files;
  }
  train::TrainingCheckpoint checkpoint = read(path);
  const auto& defaults = default_settings();
  for (const auto& [name, value] : defaults.items()) {  // flags that its version did not have
    if (files.settings.contains("--" + name)) checkpoint.settings.try_emplace("--" + name, text_of(value));
  }
  require_settings(checkpoint.settings, files.settings, path);
  files.resumed = checkpoint.state;
  return files;
}

std::optional<std::int64_t> checkpointed_iteration(const fs::path& folder) {
  try {
    return train::read_checkpoint(TrainingFiles{folder, {}, {}}.checkpoint()).state.iteration;
  } catch (const CheckpointError&) {
    return std::nullopt;
  }
}

void remove_checkpoint(const fs::path& folder) {
  std::error_code ignored;
  fs::remove(TrainingFiles{folder, {}, {}}.checkpoint(), ignored);
}

}  // namespace clip_lora::cli
