#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

/// What is done about names that begin with a dot.
enum class HiddenFiles {
  kKeep,  ///< as torchvision's ImageFolder
  kSkip   ///< for a user's own folders: .DS_Store, ._IMG_1.jpg, .ipynb_checkpoints; .gif counts as a picture
          ///< there
};

/// The pictures of one class.
struct ClassFolder {
  std::string name;                 ///< the folder's
  std::vector<std::string> images;  ///< paths, in ImageFolder's order
};

/// The class folders below `folder`, sorted by name, with the pictures at any depth in them, told by their
/// extension (torchvision's IMG_EXTENSIONS, in any case); links are followed, no file is opened. Order: that
/// of torchvision's ImageFolder: folders sorted by path, files sorted within a folder. A class without
/// pictures is returned empty. Throws DataError for a folder that cannot be read and for a link that leads
/// back to a folder it lies in.
std::vector<ClassFolder> list_class_folders(const std::filesystem::path& folder, HiddenFiles hidden);

/// The pictures at any depth below `folder`, in the same order. Throws as above.
std::vector<std::string> list_images(const std::filesystem::path& folder, HiddenFiles hidden);

/// Whether the file's extension is one of torchvision's IMG_EXTENSIONS or .gif.
bool has_image_extension(const std::filesystem::path& path);

}  // namespace clip_lora::data
