// A library for LD_PRELOAD that strikes at a chosen change of the files below a folder.
//
//   CLIP_LORA_FAULT_FOLDER  the folder; changes elsewhere do not count
//   CLIP_LORA_FAULT_LOG     a file that gets a line for each change
//   CLIP_LORA_FAULT_AT      number of the change at which it strikes, from 1; 0: never
//   CLIP_LORA_FAULT         "kill": SIGKILL before the change; "tear": SIGKILL after half of it, where it is a write;
//                           or the number of an error, which that change and all later ones that need room end with
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

struct Fault {
  std::string folder, log, kind;
  long at = 0;
};

const Fault& fault() {
  static const Fault kFault = [] {
    const auto variable = [](const char* name) {
      const char* const value = std::getenv(name);
      return std::string(value == nullptr ? "" : value);
    };
    return Fault{variable("CLIP_LORA_FAULT_FOLDER"), variable("CLIP_LORA_FAULT_LOG"),
                 variable("CLIP_LORA_FAULT"), std::atol(variable("CLIP_LORA_FAULT_AT").c_str())};
  }();
  return kFault;
}

template <typename Function>
Function* real(Function*, const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

std::string absolute(int folder, const char* path) {
  if (path[0] == '/') return path;
  char base[PATH_MAX] = {};
  const std::string link = folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/" + std::to_string(folder);
  if (readlink(link.c_str(), base, sizeof base - 1) < 0) return path;
  return std::string(base) + "/" + path;
}

std::string path_of(int file) {
  char path[PATH_MAX] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(file);
  return readlink(link.c_str(), path, sizeof path - 1) < 0 ? std::string() : path;
}

std::atomic<long> changes = 0;

enum class Strike { kNo, kTear, kFail };

/// Counts a change and says what becomes of it. `needs_room`: a full disk stops it.
Strike strike(const char* what, const std::string& path, bool needs_room) {
  const Fault& chosen = fault();
  if (chosen.folder.empty() || !path.starts_with(chosen.folder)) return Strike::kNo;
  const long number = ++changes;
  const std::string line = std::string(what) + " " + path + "\n";
  const int log = static_cast<int>(
      syscall(SYS_openat, AT_FDCWD, chosen.log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  if (log >= 0) {
    syscall(SYS_write, log, line.data(), line.size());
    syscall(SYS_close, log);
  }
  if (chosen.at == 0 || number < chosen.at) return Strike::kNo;
  if (chosen.kind == "kill") raise(SIGKILL);
  if (chosen.kind == "tear") return Strike::kTear;
  if (!needs_room) return Strike::kNo;
  errno = std::atoi(chosen.kind.c_str());
  return Strike::kFail;
}

/// What `function` makes of the arguments, unless it is the change to be disturbed.
template <typename Function, typename... Arguments>
int change(Function* function, const char* what, const std::string& path, bool needs_room,
           Arguments... arguments) {
  const Strike struck = strike(what, path, needs_room);
  if (struck == Strike::kFail) return -1;
  const int result = function(arguments...);
  const int reason = errno;
  if (struck == Strike::kTear) raise(SIGKILL);
  errno = reason;
  return result;
}

}  // namespace

#define REAL(name) real(static_cast<decltype(&(name))>(nullptr), #name)

extern "C" {

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  if ((flags & (O_CREAT | O_TRUNC)) != 0 && strike("create", absolute(AT_FDCWD, path), true) != Strike::kNo) {
    if (fault().kind == "tear") raise(SIGKILL);
    return -1;
  }
  using Open = int(const char*, int, ...);
  return reinterpret_cast<Open*>(dlsym(RTLD_NEXT, "open"))(path, flags, mode);
}
int open64(const char* path, int flags, ...) __attribute__((alias("open")));

FILE* fopen(const char* path, const char* mode) {
  if (mode[0] != 'r' && strike("create", absolute(AT_FDCWD, path), true) != Strike::kNo) {
    if (fault().kind == "tear") raise(SIGKILL);
    return nullptr;
  }
  return REAL(fopen)(path, mode);
}
FILE* fopen64(const char* path, const char* mode) __attribute__((alias("fopen")));

ssize_t write(int file, const void* bytes, size_t size) {
  const Strike struck = strike("write", path_of(file), true);
  if (struck == Strike::kFail) return -1;
  if (struck == Strike::kTear) {
    syscall(SYS_write, file, bytes, size / 2);
    raise(SIGKILL);
  }
  return syscall(SYS_write, file, bytes, size);
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  const Strike struck = strike("write", path_of(file), true);
  if (struck == Strike::kFail) return -1;
  if (struck == Strike::kTear) {
    syscall(SYS_write, file, parts[0].iov_base, parts[0].iov_len / 2);
    raise(SIGKILL);
  }
  return syscall(SYS_writev, file, parts, count);
}

ssize_t pwrite(int file, const void* bytes, size_t size, off_t offset) {
  const Strike struck = strike("write", path_of(file), true);
  if (struck == Strike::kFail) return -1;
  if (struck == Strike::kTear) {
    syscall(SYS_pwrite64, file, bytes, size / 2, offset);
    raise(SIGKILL);
  }
  return syscall(SYS_pwrite64, file, bytes, size, offset);
}
ssize_t pwrite64(int file, const void* bytes, size_t size, off_t offset) __attribute__((alias("pwrite")));

ssize_t sendfile(int to, int from, off_t* offset, size_t size) {
  const Strike struck = strike("write", path_of(to), true);
  if (struck == Strike::kFail) return -1;
  if (struck == Strike::kTear) {
    syscall(SYS_sendfile, to, from, offset, size / 2);
    raise(SIGKILL);
  }
  return syscall(SYS_sendfile, to, from, offset, size);
}
ssize_t sendfile64(int to, int from, off_t* offset, size_t size) __attribute__((alias("sendfile")));

ssize_t copy_file_range(int from, off64_t* in, int to, off64_t* out, size_t size, unsigned flags) {
  const Strike struck = strike("write", path_of(to), true);
  if (struck == Strike::kFail) return -1;
  if (struck == Strike::kTear) {
    syscall(SYS_copy_file_range, from, in, to, out, size / 2, flags);
    raise(SIGKILL);
  }
  return syscall(SYS_copy_file_range, from, in, to, out, size, flags);
}

int fsync(int file) {
  if (strike("flush", path_of(file), true) == Strike::kFail) return -1;
  if (fault().kind == "tear" && fault().at != 0 && changes >= fault().at) raise(SIGKILL);
  return static_cast<int>(syscall(SYS_fsync, file));
}

// Changes that are done at once, or by half by nobody: the kill comes behind them.
int rename(const char* from, const char* to) {
  return change(REAL(rename), "rename", absolute(AT_FDCWD, to), false, from, to);
}
int renameat2(int old_folder, const char* from, int new_folder, const char* to, unsigned flags) {
  return change(REAL(renameat2), "rename", absolute(new_folder, to), false, old_folder, from, new_folder, to,
                flags);
}
int unlink(const char* path) { return change(REAL(unlink), "remove", absolute(AT_FDCWD, path), false, path); }
int unlinkat(int folder, const char* path, int flags) {
  return change(REAL(unlinkat), "remove", absolute(folder, path), false, folder, path, flags);
}
int remove(const char* path) { return change(REAL(remove), "remove", absolute(AT_FDCWD, path), false, path); }
int rmdir(const char* path) { return change(REAL(rmdir), "remove", absolute(AT_FDCWD, path), false, path); }
int mkdir(const char* path, mode_t mode) {
  return change(REAL(mkdir), "create", absolute(AT_FDCWD, path), true, path, mode);
}
int link(const char* from, const char* to) {
  return change(REAL(link), "create", absolute(AT_FDCWD, to), true, from, to);
}
int symlink(const char* from, const char* to) {
  return change(REAL(symlink), "create", absolute(AT_FDCWD, to), true, from, to);
}

}  // extern "C"
