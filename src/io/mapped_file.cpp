#include "clip_lora/io/mapped_file.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::io {
namespace {

/// What a signal handler may look at: the maps there are, or the first of them if there are very many.
struct Known {
  std::atomic<const char*> message = nullptr;  // the last that is written and the first that goes
  std::atomic<std::uintptr_t> begin = 0;
  std::atomic<std::uintptr_t> end = 0;
  std::atomic<bool> is_taken = false;
};
std::array<Known, 256> known_files;

void enter(const void* data, std::size_t size, const std::string& message) {
  for (Known& known : known_files) {
    if (known.is_taken.exchange(true)) continue;
    known.begin = reinterpret_cast<std::uintptr_t>(data);
    known.end = known.begin + size;
    known.message = message.c_str();
    return;
  }
}

void leave(const std::string& message) {
  for (Known& known : known_files) {
    if (known.message != message.c_str()) continue;
    known.message = nullptr;
    known.is_taken = false;
    return;
  }
}

void end_naming_the_file(int, siginfo_t* info, void*) {
  constexpr int kExitCode = 4;
  const auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  for (const Known& known : known_files) {
    const char* const message = known.message;
    if (message == nullptr || address < known.begin || address >= known.end) continue;
    if (::write(STDERR_FILENO, message, std::strlen(message)) < 0) ::_exit(kExitCode);
    ::_exit(kExitCode);
  }
  std::signal(SIGBUS, SIG_DFL);  // it comes again
}

}  // namespace

void name_files_cut_short() {
  struct sigaction action {};
  action.sa_sigaction = end_naming_the_file;
  action.sa_flags = SA_SIGINFO;
  ::sigaction(SIGBUS, &action, nullptr);
}

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
  message_ = "clip_lora: '" + path.string() +
             "': a part of it cannot be read any more: the file was cut short, or its disk fails\n";
  if (size_ > 0) enter(data_, size_, message_);
}

MappedFile::~MappedFile() {
  if (size_ == 0) return;
  leave(message_);
  ::munmap(data_, size_);
}

}  // namespace clip_lora::io
