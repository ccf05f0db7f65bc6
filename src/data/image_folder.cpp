#include "clip_lora/data/image_folder.hpp"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <iterator>
#include <memory>
#include <string_view>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/parallel.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

/// torchvision's IMG_EXTENSIONS.
constexpr std::array<std::string_view, 9> kExtensions = {".jpg", ".jpeg", ".png",  ".ppm", ".bmp",
                                                         ".pgm", ".tif",  ".tiff", ".webp"};

/// As torchvision tells them: by how the name ends, so that a file may be called just ".jpg".
bool is_listed(std::string_view name, HiddenFiles hidden) {
  const std::string lower = lower_case(name);
  const auto ends_name = [&](std::string_view extension) { return lower.ends_with(extension); };
  return std::any_of(kExtensions.begin(), kExtensions.end(), ends_name) ||
         (hidden == HiddenFiles::kSkip && ends_name(".gif"));
}

[[noreturn]] void fail(const std::string& folder, const std::string& reason) {
  throw DataError("folder '" + folder + "': " + reason);
}

/// Python's os.path.join of a folder and a name.
std::string join(const std::string& folder, std::string_view name) {
  std::string path;
  path.reserve(folder.size() + 1 + name.size());  // exactly: there may be millions
  path.append(folder);
  if (!path.ends_with('/')) path += '/';
  return path.append(name);
}

/// What a folder is, whatever its path.
struct FolderId {
  dev_t device;
  ino_t inode;
  bool operator==(const FolderId&) const = default;
};

/// Whether the entry is a folder, or a link to one. A link to nowhere is a file, as in Python.
bool names_a_folder(const dirent& entry, const std::string& parent) {
  if (entry.d_type == DT_DIR) return true;
  if (entry.d_type != DT_LNK && entry.d_type != DT_UNKNOWN) return false;
  struct stat status {};
  return ::stat(join(parent, entry.d_name).c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

struct CloseFolder {
  void operator()(DIR* stream) const { ::closedir(stream); }
};

/// One pass over the folder: the system says with each name whether it is a folder, so that no file is looked
/// at.
template <typename Visit>
FolderId visit_entries(const std::string& folder, HiddenFiles hidden, const Visit& visit) {
  const auto reason = [] { return std::generic_category().message(errno); };
  const std::unique_ptr<DIR, CloseFolder> stream(::opendir(folder.c_str()));
  if (!stream) fail(folder, "cannot be read: " + reason());
  struct stat status {};
  if (::fstat(::dirfd(stream.get()), &status) != 0) fail(folder, "cannot be read: " + reason());
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || (hidden == HiddenFiles::kSkip && name.starts_with('.'))) continue;
    visit(name, names_a_folder(*entry, folder));
  }
  if (errno != 0) fail(folder, "cannot be read: " + reason());
  return {status.st_dev, status.st_ino};
}

/// One folder's pictures, sorted.
struct Pictures {
  std::string folder;
  std::vector<std::string> paths;
};

/// Collects the pictures of `folder` and of what lies below it. `above`: the folders it lies in.
void walk(const std::string& folder, HiddenFiles hidden, std::vector<FolderId>& above,
          std::vector<Pictures>& found) {
  Pictures pictures{folder, {}};
  std::vector<std::string> below;
  const FolderId id = visit_entries(folder, hidden, [&](std::string_view name, bool entry_is_folder) {
    if (entry_is_folder) {
      below.push_back(join(folder, name));
    } else if (is_listed(name, hidden)) {
      pictures.paths.push_back(join(folder, name));
    }
  });
  if (std::find(above.begin(), above.end(), id) != above.end()) {
    fail(folder,
         "is a link to a folder that it lies in, so that listing it has no end (hint: remove the link)");
  }
  std::sort(pictures.paths.begin(), pictures.paths.end());
  pictures.paths.shrink_to_fit();
  found.push_back(std::move(pictures));
  above.push_back(id);
  for (const std::string& path : below) walk(path, hidden, above, found);
  above.pop_back();
}

/// In the order of Python's sorted(os.walk(folder, followlinks=True)), each folder's files sorted.
std::vector<std::string> list_tree(const std::string& folder, HiddenFiles hidden,
                                   std::vector<FolderId> above) {
  std::vector<Pictures> found;
  walk(folder, hidden, above, found);
  if (found.size() == 1) return std::move(found.front().paths);
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.folder < b.folder; });
  std::vector<std::string> images;
  for (Pictures& pictures : found) {
    std::move(pictures.paths.begin(), pictures.paths.end(), std::back_inserter(images));
  }
  images.shrink_to_fit();
  return images;
}

}  // namespace

std::vector<ClassFolder> list_class_folders(const std::filesystem::path& folder, HiddenFiles hidden) {
  const std::string root = folder.string();
  std::vector<ClassFolder> classes;
  const FolderId id = visit_entries(root, hidden, [&](std::string_view name, bool is_class) {
    if (is_class) classes.push_back({std::string(name), {}});
  });
  std::sort(classes.begin(), classes.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  parallel_for(classes.size(), hardware_workers(), [&](std::size_t i) {
    classes[i].images = list_tree(join(root, classes[i].name), hidden, {id});
  });
  return classes;
}

std::vector<std::string> list_images(const std::filesystem::path& folder, HiddenFiles hidden) {
  return list_tree(folder.string(), hidden, {});
}

bool has_image_extension(const std::filesystem::path& path) {
  return is_listed(path.filename().string(), HiddenFiles::kSkip);
}

}  // namespace clip_lora::data
