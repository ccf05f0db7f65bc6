#include "clip_lora/io/mapped_file.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {

MappedFile::MappedFile(const std::filesystem::path& path) {
  // Without O_NONBLOCK, opening a pipe would wait for its other end.
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) throw CheckpointError("cannot read '" + path.string() + "': " + std::strerror(errno));
  struct stat status {};
  const bool regular = ::fstat(file, &status) == 0 && S_ISREG(status.st_mode);
  size_ = regular ? static_cast<std::size_t>(status.st_size) : 0;
  // Without MAP_NORESERVE the whole file would count as memory that must be free, although hardly any of its
  // pages are written to.
  constexpr int kFlags = MAP_PRIVATE | MAP_NORESERVE;
  if (size_ > 0) data_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, kFlags, file, 0);
  const int reason = errno;
  ::close(file);
  if (!regular) throw CheckpointError("cannot read '" + path.string() + "': not a regular file");
  if (data_ == MAP_FAILED)
    throw CheckpointError("cannot map '" + path.string() + "': " + std::strerror(reason));
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(data_, size_);
}

}  // namespace clip_lora::io
