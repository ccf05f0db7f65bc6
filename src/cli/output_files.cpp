#include "output_files.hpp"

#include <fcntl.h>
#include <stdio.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

/// "/a/b/" and "/a/b" are one folder.
fs::path without_slash(const fs::path& folder) {
  const fs::path path = folder.lexically_normal();
  return path.has_filename() ? path : path.parent_path();
}

/// Throws if `folder` is none, or holds what is not in `replacement`: it may be anything that a slip of a
/// finger named.
void require_replaceable(const fs::path& folder, const fs::path& replacement) {
  if (!fs::is_directory(folder)) io::throw_unwritable(folder, "it is a file, expected a folder");
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!fs::exists(replacement / entry.path().filename())) {
      io::throw_unwritable(folder, "it holds other files, such as '" + entry.path().filename().string() +
                                       "' (hint: choose another --out, or remove the folder)");
    }
  }
}

/// Removes a temporary folder unless it was renamed.
struct RemovedFolder {
  fs::path path;
  ~RemovedFolder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
};

/// In one step, so that there is a whole folder of the name at any time. The old one ends up as `replacement`.
void replace_folder(const fs::path& folder, const fs::path& replacement) {
  if (!fs::exists(folder)) return fs::rename(replacement, folder);
  if (::renameat2(AT_FDCWD, replacement.c_str(), AT_FDCWD, folder.c_str(), RENAME_EXCHANGE) == 0) return;
  if (errno != EINVAL && errno != ENOSYS) io::throw_unwritable(folder, std::strerror(errno));
  // A file system, such as NFS, that cannot do it in one step.
  const fs::path old = io::temporary_name(folder);
  fs::rename(folder, old);
  std::error_code error;
  fs::rename(replacement, folder, error);
  fs::rename(old, error ? folder : replacement);
  if (error) io::throw_unwritable(folder, error.message());
}

void require_no_folder(const fs::path& file) {
  std::error_code ignored;
  if (!file.has_filename() || fs::is_directory(file, ignored)) {
    io::throw_unwritable(file, "it is a folder, expected a file");
  }
}

/// Does `write` in a temporary folder; an error that names it names `final_folder` instead.
void write_in(const fs::path& temporary, const fs::path& final_folder,
              const std::function<void(const fs::path&)>& write) {
  fs::create_directories(temporary);
  try {
    write(temporary);
  } catch (const ConfigError& error) {
    std::string message = error.what();
    const std::string name = (temporary / "").string();
    if (const auto at = message.find(name); at != std::string::npos)
      message.replace(at, name.size(), (final_folder / "").string());
    throw ConfigError(message);
  }
}

void throw_if_interrupted() {
  if (pending_interrupt() != 0) throw Interrupted(pending_interrupt(), "interrupted: nothing was written");
}

}  // namespace

void require_free(const std::vector<fs::path>& paths, bool force) {
  std::error_code ignored;  // what cannot be looked at cannot be written either, which is told then
  for (const auto& path : paths) {
    if (!force && fs::exists(path, ignored)) {
      throw ConfigError("'" + path.string() + "' is already there (hint: --force replaces it)");
    }
  }
}

void require_writable_file(const fs::path& file) {
  require_no_folder(file);
  try {
    io::require_writable(fs::absolute(file).parent_path());
  } catch (const ConfigError& error) {
    io::throw_unwritable(file, error.what());
  }
}

void write_folder(const fs::path& out, const std::function<void(const fs::path&)>& write) {
  const fs::path folder = without_slash(out);
  io::remove_temporaries_of(folder);
  const RemovedFolder temporary{io::temporary_name(folder)};
  try {
    write_in(temporary.path, folder, write);
    throw_if_interrupted();
    if (fs::exists(folder)) require_replaceable(folder, temporary.path);
    replace_folder(folder, temporary.path);
  } catch (const fs::filesystem_error& error) {
    io::throw_unwritable(folder, error.code().message());
  }
}

void write_files(const std::vector<fs::path>& files, const std::function<void(const fs::path&)>& write) {
  const fs::path& first = files.front();
  require_no_folder(first);
  io::remove_temporaries_of(first);
  const RemovedFolder temporary{io::temporary_name(first)};
  try {
    write_in(temporary.path, first.parent_path(), write);
    throw_if_interrupted();
    for (const auto& file : files) require_no_folder(file);
    // Those behind the first describe it: none of them stands beside another first one, even if this is killed.
    for (std::size_t i = 1; i < files.size(); ++i) fs::remove(files[i]);
    for (const auto& file : files) fs::rename(temporary.path / file.filename(), file);
  } catch (const fs::filesystem_error& error) {
    io::throw_unwritable(first, error.code().message());
  }
}

}  // namespace clip_lora::cli
