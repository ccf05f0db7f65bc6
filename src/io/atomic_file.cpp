#include "clip_lora/io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <string>
#include <system_error>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void throw_unwritable(const fs::path& path, const std::string& reason) {
  throw ConfigError("cannot write '" + path.string() + "': " + reason);
}

void make_folders(const fs::path& folder) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_unwritable(folder, error.message());
}

/// A name beside `path` that no other process or thread uses.
fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter = 0;
  fs::path temporary = path;
  temporary += ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
  return temporary;
}

void flush_to_disk(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) throw_unwritable(path, std::strerror(errno));
  const bool flushed = ::fsync(file) == 0;
  const int reason = errno;
  ::close(file);
  if (!flushed && reason != EINVAL) throw_unwritable(path, std::strerror(reason));
}

}  // namespace

void write_atomically(const fs::path& path, const std::function<void(const fs::path&)>& write) {
  make_folders(path.parent_path());
  const fs::path temporary = temporary_name(path);
  try {
    write(temporary);
    flush_to_disk(temporary);
    std::error_code error;
    fs::rename(temporary, path, error);
    if (error) throw_unwritable(path, error.message());
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

void write_atomically(const fs::path& path, std::string_view bytes) {
  write_atomically(path, [&](const fs::path& temporary) {
    errno = 0;
    std::ofstream file(temporary, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    if (!file) throw_unwritable(path, errno != 0 ? std::strerror(errno) : "unknown reason");
  });
}

void require_writable(const fs::path& folder) {
  make_folders(folder);
  const fs::path probe = temporary_name(folder / "probe");
  const int file = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw_unwritable(folder, std::strerror(errno));
  ::close(file);
  ::unlink(probe.c_str());
}

}  // namespace clip_lora::io
