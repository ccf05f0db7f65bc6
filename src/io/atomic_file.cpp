#include "clip_lora/io/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/process.hpp"

namespace clip_lora::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kTemporaryMark = ".tmp-";

void make_folders(const fs::path& folder) {
  if (folder.empty()) return;
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw_unwritable(folder, error.message());
}

/// The tag in a name by temporary_name(); nothing for another name.
std::optional<std::string> tag_in(const std::string& name) {
  const std::size_t mark = name.rfind(kTemporaryMark);
  const std::size_t number = name.rfind('-');
  if (mark == std::string::npos || number < mark + kTemporaryMark.size()) return std::nullopt;
  return name.substr(mark + kTemporaryMark.size(), number - mark - kTemporaryMark.size());
}

bool is_of_this_machine(const std::string& tag) {
  const std::string own = process_tag();
  return tag.starts_with(own.substr(0, own.find('.') + 1));
}

void remove_temporaries_that_begin(const fs::path& folder, const std::string& begin, Abandoned which) {
  std::error_code error;  // what cannot be looked at or removed stays
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto tag = tag_in(name);
    if (!tag || !name.starts_with(begin)) continue;
    const bool is_anothers = which == Abandoned::kOfAllButLive && !is_of_this_machine(*tag);
    std::error_code ignored;
    if (is_anothers || is_surely_dead(*tag)) fs::remove_all(entry->path(), ignored);
  }
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

void throw_unwritable(const fs::path& path, const std::string& reason) {
  throw ConfigError("cannot write '" + path.string() + "': " + reason);
}

fs::path temporary_name(const fs::path& path) {
  static std::atomic<unsigned> counter = 0;
  fs::path temporary = path;
  temporary += std::string(kTemporaryMark) + process_tag() + "-" + std::to_string(counter++);
  return temporary;
}

void write_new_file(const fs::path& path, std::string_view bytes) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file < 0) throw_unwritable(path, std::strerror(errno));
  const ssize_t written = ::write(file, bytes.data(), bytes.size());
  const bool is_written = written == static_cast<ssize_t>(bytes.size());
  const int reason = is_written    ? 0
                     : written < 0 ? errno
                                   : ENOSPC;  // a part was written: there was no room for more
  if (::close(file) == 0 && is_written) return;
  const std::string message = std::strerror(reason != 0 ? reason : errno);
  ::unlink(path.c_str());
  throw_unwritable(path, message);
}

void remove_temporaries(const fs::path& folder, Abandoned which) {
  remove_temporaries_that_begin(folder, "", which);
}

void remove_temporaries_of(const fs::path& path, Abandoned which) {
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  remove_temporaries_that_begin(folder, path.filename().string() + std::string(kTemporaryMark), which);
}

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
  remove_temporaries_of(folder / "probe", Abandoned::kOfTheDead);  // of one that was killed at it
  const fs::path probe = temporary_name(folder / "probe");
  const int file = ::open(probe.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) throw_unwritable(folder, std::strerror(errno));
  ::close(file);
  ::unlink(probe.c_str());
}

}  // namespace clip_lora::io
