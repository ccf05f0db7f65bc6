#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace clip_lora::io {

/// A whole file in memory, mapped copy-on-write: pages come from the page cache, and what is written to them
/// stays in this process. Throws CheckpointError if the file is missing, not regular, or cannot be mapped.
/// A part that cannot be read any more, since the file was cut short or its disk fails, is a SIGBUS to whoever looks at
/// it: see name_files_cut_short().
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
  std::string message_;  // of name_files_cut_short()
};

/// From now on such a SIGBUS ends the process with a line that names the file, and exit code 4.
void name_files_cut_short();

}  // namespace clip_lora::io
