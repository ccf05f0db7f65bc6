#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "clip_lora/cli/load_model.hpp"
#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/lora/adapter_file.hpp"
#include "run_data.hpp"

namespace clip_lora::cli {

/// The adapter that a run begins with, and what it had a say in.
struct StartingAdapter {
  std::shared_ptr<lora::Adapter> adapter;
  lora::AdapterFormat saved_format;  ///< of what the run saves
  std::vector<std::string> templates;
  std::vector<std::string> warnings;
};

/// A fresh adapter, or that of the file `source` unless it is empty. Puts into `options.adapter` what the
/// adapter is, and into `model` the preprocessing that the flags, else the adapter, else the kind of data and
/// the checkpoint ask for. Throws ConfigError, and CheckpointError for an adapter that is not what the flags
/// say.
StartingAdapter start_adapter(const std::filesystem::path& source, RunOptions& options, Model& model,
                              const RunData& data);

}  // namespace clip_lora::cli
