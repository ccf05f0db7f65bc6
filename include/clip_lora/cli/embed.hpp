#pragma once

#include <cstdint>
#include <string>

#include "clip_lora/cli/picture_options.hpp"

namespace clip_lora::cli {

/// Everything that `clip_lora embed` can be told.
struct EmbedOptions {
  PictureOptions pictures;
  std::string out;     ///< .safetensors or .npy; `out`.json goes with it
  bool raw = false;    ///< leave the features as long as they are, instead of of length 1
  bool force = false;  ///< replace what is there

  /// Throws ConfigError naming the flag, its value and what is allowed.
  void validate() const;
};

/// Binds every field to its flag and its JSON key, but the pictures' names, which are no flag.
void bind(OptionTable& table, EmbedOptions& options);

/// Writes the image features of pictures, [N, E] float32, and beside them, as JSON, the list of files in the
/// order of the rows and what they were made with. Both are there whole or neither. Returns and throws as
/// predict(), and throws DataError if no picture can be read.
std::int64_t embed(const EmbedOptions& options);

}  // namespace clip_lora::cli
