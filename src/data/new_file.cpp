#include "new_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <system_error>
#include <utility>

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

/// Where a process was killed, its temporary file stays behind. If a process lives all the same whose file is
/// taken for such and removed, it warns that it cannot commit.
void remove_abandoned(const fs::path& path, io::Abandoned others) {
  io::remove_temporaries(path.parent_path(), io::Abandoned::kOfTheDead);
  io::remove_temporaries_of(path, others);
  const std::string prefix = path.filename().string() + ".tmp-";
  const auto last_hour = fs::file_time_type::clock::now() - std::chrono::hours(1);
  std::error_code error;  // what cannot be looked at or removed stays
  for (fs::directory_iterator entry(path.parent_path(), error), end; !error && entry != end;
       entry.increment(error)) {
    if (!entry->path().filename().string().starts_with(prefix)) continue;
    std::error_code gone;
    const auto written = entry->last_write_time(gone);
    if (!gone && entry->is_regular_file(gone) && written < last_hour) fs::remove(entry->path(), gone);
  }
}

}  // namespace

NewFile::NewFile(fs::path path, io::Abandoned others) : path_(std::move(path)) {
  std::error_code error;
  fs::create_directories(path_.parent_path(), error);
  if (error) io::throw_unwritable(path_.parent_path(), error.message());
  remove_abandoned(path_, others);
  while (file_ < 0) {
    temporary_ = io::temporary_name(path_);
    file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0 && errno != EEXIST) io::throw_unwritable(path_, std::strerror(errno));
  }
}

NewFile::~NewFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void NewFile::write(std::size_t offset, const void* bytes, std::size_t size) const {
  const auto* from = static_cast<const char*>(bytes);
  while (size > 0) {
    const ssize_t written = ::pwrite(file_, from, size, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) io::throw_unwritable(path_, std::strerror(errno));
    from += written;
    offset += static_cast<std::size_t>(written);
    size -= static_cast<std::size_t>(written);
  }
}

void NewFile::commit() {
  // Some file systems report only now that the disk is full.
  const bool closed = ::close(std::exchange(file_, -1)) == 0;
  if (!closed || ::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    ::unlink(temporary_.c_str());
    io::throw_unwritable(path_, reason);
  }
}

}  // namespace clip_lora::data
