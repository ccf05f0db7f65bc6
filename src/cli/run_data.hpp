#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "clip_lora/cli/run_options.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/dataset.hpp"

namespace clip_lora::cli {

/// The pictures of one run.
struct RunData {
  data::Dataset dataset;
  const data::Benchmark* benchmark = nullptr;  ///< nullptr: own data
  std::vector<data::Item> train;               ///< the few-shot sample, or all
  std::vector<data::Item>
      val;  ///< its min(shots, 4) validation images per class, or all; empty if nobody looks
  std::vector<data::Item> test;
  std::map<std::string, std::int64_t>
      left_out;  ///< missing images by split that is used; with --allow_missing
  std::vector<std::string> warnings;
};

/// Finds the data set, samples it, and checks that the images are there that the run needs. Throws
/// ConfigError, DataError.
RunData load_run_data(const RunOptions& options);

}  // namespace clip_lora::cli
