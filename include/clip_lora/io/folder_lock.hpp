#pragma once

#include <filesystem>

namespace clip_lora::io {

/// A folder that one process writes results to. The system gives it free when that process ends, however it ends.
class FolderLock {
 public:
  /// Throws ConfigError if another process of this machine has `folder`. Where the file system has no locks for folders,
  /// such as NFS, nothing is locked.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int folder_ = -1;
};

}  // namespace clip_lora::io
