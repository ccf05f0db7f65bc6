#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "clip_lora/cli/run_options.hpp"

namespace clip_lora::cli {

/// What `clip_lora predict` and `clip_lora embed` are told alike: which pictures, and what looks at them.
struct PictureOptions {
  std::vector<std::string> images;  ///< see ImageInputs
  bool null_separated = false;      ///< names on standard input end in NUL
  ModelOptions model;
  std::string adapter;        ///< file or folder in any format; empty: the model as it is
  std::string exif = "auto";  ///< "apply", "ignore", or "auto": as the adapter was trained, without one apply
  std::string resize_mode;    ///< see image::ResizeMode; empty: the adapter's or the checkpoint's
  std::int64_t batch_size = 64;
  std::int64_t workers = 0;  ///< threads that decode; 0: one per hardware thread
  ComputeOptions compute;

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
};

/// Binds every field to its flag and its JSON key, but `images`, which is no flag.
void bind(OptionTable& table, PictureOptions& options);

}  // namespace clip_lora::cli
