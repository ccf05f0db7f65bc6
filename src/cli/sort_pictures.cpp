#include "clip_lora/cli/sort_pictures.hpp"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <system_error>

#include "clip_lora/cli/option_table.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/io/atomic_file.hpp"

namespace clip_lora::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kLongestFileName = 255;    // bytes, Linux's own
constexpr std::size_t kLongestFolderName = 200;  // leaves room for a number

/// The first at most `bytes` bytes of UTF-8, no character cut in two.
std::string shortened(const std::string& text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  std::size_t end = bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0U) == 0x80U) --end;
  return text.substr(0, end);
}

std::string folder_name(const std::string& class_name) {
  std::string name = shortened(class_name, kLongestFolderName);
  for (char& character : name) {
    const auto code = static_cast<unsigned char>(character);
    if (code < 0x20 || code == 0x7F || character == '/') character = '_';
  }
  if (name.empty() || name.front() == '.') name.replace(0, name.empty() ? 0 : 1, "_");
  return name;
}

/// "cat.jpg" as "cat-2.jpg".
std::string numbered(const fs::path& name, int number) {
  if (number == 1) return name.string();
  const std::string ending = "-" + std::to_string(number) + name.extension().string();
  const std::size_t room = kLongestFileName - std::min(kLongestFileName, ending.size());
  return shortened(name.stem().string(), room) + ending;
}

bool may(const fs::path& path, int access) {
  return ::faccessat(AT_FDCWD, path.c_str(), access, AT_EACCESS) == 0;
}

/// Whether `reason` for which `picture` could not be put into `folder` lies with the picture or its own
/// folder.
bool is_of_picture(const fs::path& picture, const fs::path& folder, SortMode mode, int reason) {
  if (!may(picture, F_OK)) return true;
  if (reason != EACCES && reason != EPERM) return false;
  if (mode == SortMode::kCopy) return !may(picture, R_OK);
  return mode == SortMode::kMove && may(folder, W_OK | X_OK);
}

[[noreturn]] void throw_failed(const fs::path& picture, const fs::path& target, SortMode mode, int reason) {
  const std::string message = std::generic_category().message(reason);
  if (is_of_picture(picture, target.parent_path(), mode, reason)) {
    throw DataError("image '" + picture.string() + "': it cannot be put at '" + target.string() +
                    "': " + message);
  }
  throw ConfigError("cannot put '" + picture.string() + "' at '" + target.string() + "': " + message);
}

bool same_content(const fs::path& one, const fs::path& other) {
  std::error_code error;
  if (fs::equivalent(one, other, error)) return true;
  if (!fs::is_regular_file(other, error)) return false;
  const auto size = fs::file_size(one, error);
  if (error || size != fs::file_size(other, error) || error) return false;
  std::ifstream first(one, std::ios::binary);
  std::ifstream second(other, std::ios::binary);
  using Bytes = std::istreambuf_iterator<char>;
  return first && second && std::equal(Bytes(first), Bytes(), Bytes(second), Bytes());
}

/// Hidden, so that one which a killed run left there is no picture.
fs::path temporary_in(const fs::path& folder) { return folder / ".clip_lora"; }

/// Gives `file` another name that nobody has. 0, or the reason why not: EEXIST if somebody has it, EXDEV if
/// that would be another file system.
int rename_without_replacing(const fs::path& file, const fs::path& name) {
  if (::renameat2(AT_FDCWD, file.c_str(), AT_FDCWD, name.c_str(), RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system, such as NFS, that cannot do it in one step.
  if (::link(file.c_str(), name.c_str()) != 0) return errno;
  return ::unlink(file.c_str()) == 0 ? 0 : errno;
}

int flush_to_disk(const fs::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return errno;
  const int result = ::fsync(file) == 0 || errno == EINVAL ? 0 : errno;
  ::close(file);
  return result;
}

/// Removes a temporary file unless it was renamed.
struct RemovedFile {
  fs::path path;
  ~RemovedFile() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
};

/// 0, or the reason why not; EEXIST if `target` is there.
int copy(const fs::path& picture, const fs::path& target, bool flush) {
  const RemovedFile temporary{io::temporary_name(temporary_in(target.parent_path()))};
  std::error_code error;
  fs::copy_file(picture, temporary.path, error);
  if (!error) fs::last_write_time(temporary.path, fs::last_write_time(picture, error), error);
  int reason = error.value();
  if (reason == 0 && flush) reason = flush_to_disk(temporary.path);
  return reason == 0 ? rename_without_replacing(temporary.path, target) : reason;
}

/// The path of the file itself, not of what it may be a link to.
fs::path absolute_path(const fs::path& picture) {
  return fs::canonical(fs::absolute(picture).parent_path()) / picture.filename();
}

int link(const fs::path& destination, const fs::path& target) {
  return ::symlink(destination.c_str(), target.c_str()) == 0 ? 0 : errno;
}

int move(const fs::path& picture, const fs::path& target) {
  int reason = 0;
  if (fs::is_symlink(picture)) {
    reason = link(fs::canonical(picture), target);  // a relative link would lead elsewhere from there
  } else {
    reason = rename_without_replacing(picture, target);
    if (reason != EXDEV) return reason;
    reason = copy(picture, target, /*flush=*/true);
    if (reason == 0) reason = flush_to_disk(target.parent_path());
  }
  if (reason != 0) return reason;
  if (::unlink(picture.c_str()) == 0 || errno == ENOENT) return 0;
  reason = errno;
  ::unlink(target.c_str());  // what cannot be moved stays where it is, once
  return reason;
}

/// 0, or the reason why not; EEXIST if `target` is there.
int put(const fs::path& picture, const fs::path& target, SortMode mode) {
  try {
    if (!fs::exists(picture)) return ENOENT;  // a link could be made nevertheless
    if (mode == SortMode::kCopy) return copy(picture, target, /*flush=*/false);
    return mode == SortMode::kLink ? link(absolute_path(picture), target) : move(picture, target);
  } catch (const fs::filesystem_error& error) {
    return error.code().value();
  }
}

}  // namespace

SortMode parse_sort_mode(const std::string& name) {
  const std::map<std::string, SortMode> modes = {
      {"copy", SortMode::kCopy}, {"link", SortMode::kLink}, {"move", SortMode::kMove}};
  require_one_of("--mode", name, {"copy", "link", "move"});
  return modes.at(name);
}

std::vector<std::string> class_folder_names(const std::vector<std::string>& class_names) {
  std::map<std::string, std::string> folder_of;  // by class name
  std::set<std::string> taken;
  std::vector<std::string> folders;
  for (const auto& class_name : class_names) {
    const auto [entry, is_new] = folder_of.try_emplace(class_name, folder_name(class_name));
    if (is_new) {
      const std::string wanted = entry->second;
      for (int number = 2; !taken.insert(entry->second).second; ++number) {
        entry->second = wanted + "-" + std::to_string(number);
      }
    }
    folders.push_back(entry->second);
  }
  return folders;
}

Placement place_picture(const fs::path& picture, const fs::path& folder, SortMode mode) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw ConfigError("cannot make folder '" + folder.string() + "': " + error.message());
  for (int number = 1;; ++number) {
    const fs::path target = folder / numbered(picture.filename(), number);
    int reason = EEXIST;
    if (!fs::exists(fs::symlink_status(target, error))) reason = put(picture, target, mode);
    if (reason == 0) return number == 1 ? Placement::kPlaced : Placement::kRenamed;
    if (reason != EEXIST) throw_failed(picture, target, mode, reason);
    if (same_content(picture, target)) return Placement::kAlreadyThere;
  }
}

PictureSorter::PictureSorter(const fs::path& folder, const std::vector<std::string>& class_names,
                             SortMode mode, double threshold)
    : folder_(folder), mode_(mode), threshold_(threshold) {
  for (const auto& name : class_folder_names(class_names)) {
    if (threshold > 0.0 && name == kUnsureFolder) {
      throw ConfigError("--threshold: the class '" + name +
                        "' has the name of the folder of doubtful pictures " +
                        "(hint: --class_names gives it another)");
    }
    class_folders_.push_back(folder / name);
  }
  io::require_writable(folder);
}

void PictureSorter::sort(const fs::path& picture, std::int64_t label, double probability) {
  const bool is_unsure = probability < threshold_;
  const fs::path folder =
      is_unsure ? folder_ / kUnsureFolder : class_folders_[static_cast<std::size_t>(label)];
  if (looked_at_.insert(folder).second) io::remove_temporaries_of(temporary_in(folder));
  switch (place_picture(picture, folder, mode_)) {
    case Placement::kRenamed:
      ++renamed_;
      [[fallthrough]];
    case Placement::kPlaced:
      ++placed_;
      break;
    case Placement::kAlreadyThere:
      ++already_there_;
  }
  if (is_unsure) ++unsure_;
}

std::vector<fs::path> PictureSorter::folders() const {
  std::vector<fs::path> folders = {folder_, folder_ / kUnsureFolder};
  folders.insert(folders.end(), class_folders_.begin(), class_folders_.end());
  return folders;
}

}  // namespace clip_lora::cli
