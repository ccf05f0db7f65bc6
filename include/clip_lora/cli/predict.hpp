#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/cli/picture_options.hpp"

namespace clip_lora::cli {

/// Everything that `clip_lora predict` can be told.
struct PredictOptions {
  PictureOptions pictures;
  std::string class_names;  ///< file, see read_class_names of the adapted model; empty: the adapter's
  std::vector<std::string> templates;  ///< empty: the adapter's, or text::kDefaultTemplate
  std::string templates_file;          ///< templates or descriptions per class, see text::read_class_prompts
  std::int64_t top_k = 5;              ///< classes per picture, at most those that there are
  std::string format = "table";        ///< table, csv or jsonl
  std::string out;                     ///< file; empty: standard output
  bool force = false;                  ///< replace `out`
  std::string sort_into;      ///< folder that gets a folder of pictures per class; empty: nothing is sorted
  std::string mode = "copy";  ///< see SortMode
  double threshold = 0.0;     ///< pictures less probable than this are sorted into `unsure`

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
};

/// Binds every field to its flag and its JSON key, but the pictures' names, which are no flag.
void bind(OptionTable& table, PredictOptions& options);

/// Classifies pictures and writes down what they show; sorts them if asked to. Returns the number of pictures
/// that had to be skipped, each of which has been reported on the standard error stream. Throws ConfigError,
/// DataError, CheckpointError, and Interrupted between two batches; once pictures have been sorted, the
/// message says how many, and the rows so far are kept as `out`.partial.
std::int64_t predict(const PredictOptions& options);

}  // namespace clip_lora::cli
