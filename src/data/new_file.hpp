#pragma once

#include <cstddef>
#include <filesystem>

#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::data {

/// A file that is written piece by piece over a long time, under a temporary name of this object's own in the
/// same folder, and gets its real name when it is whole. io::write_atomically is for files that are written
/// in one go.
class NewFile {
 public:
  /// Makes missing folders, and removes what other processes left behind of the same file: `others`, and whatever
  /// has not been written to for an hour. Throws ConfigError naming the path and the reason, as the others.
  explicit NewFile(std::filesystem::path path, io::Abandoned others = io::Abandoned::kOfTheDead);
  /// Removes the file if it has not been committed.
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  /// Writes `size` bytes at `offset`. Thread-safe.
  void write(std::size_t offset, const void* bytes, std::size_t size) const;

  /// Gives the file its name, in place of one that has it. Once.
  void commit();

 private:
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int file_ = -1;
};

}  // namespace clip_lora::data
