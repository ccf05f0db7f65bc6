#pragma once

#include <cstddef>
#include <filesystem>

namespace clip_lora::io {

/// A whole file in memory, mapped copy-on-write: pages come from the page cache, and what is written to them
/// stays in this process. Throws CheckpointError if the file is missing, not regular, or cannot be mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  char* bytes() const { return static_cast<char*>(data_); }
  std::size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace clip_lora::io
