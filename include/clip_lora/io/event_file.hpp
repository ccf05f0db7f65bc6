#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

namespace clip_lora::io {

/// A file of scalars for TensorBoard. The format is TensorFlow's: records (length, checksum, bytes, checksum)
/// of the protocol buffer `Event`, see
/// https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/event.proto
class EventFile {
 public:
  /// Begins a file in `folder`, behind the files that are there. What those say of `first_step` and later
  /// steps counts no longer. Throws ConfigError if it cannot be written.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  /// The values that tags have at one step, on their way to the disk when it returns. Throws ConfigError if
  /// they cannot be written.
  void add(std::int64_t step, const std::vector<std::pair<std::string, double>>& scalars);

 private:
  void write_record(const std::string& event);

  std::filesystem::path path_;
  std::ofstream file_;
};

}  // namespace clip_lora::io
