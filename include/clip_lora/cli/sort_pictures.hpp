#pragma once

#include <cstdint>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// How a picture gets into its class's folder.
enum class SortMode {
  kCopy,
  kLink,  ///< a symbolic link to it
  kMove
};

/// Names as on the command line; the parser throws ConfigError with the nearest name.
SortMode parse_sort_mode(const std::string& name);

/// Where pictures below the threshold go.
inline constexpr const char* kUnsureFolder = "unsure";

/// The classes' folder names: the names themselves where the system can take them. '/', control characters
/// and a leading dot become '_', long names are cut, and of different names that become equal the later ones
/// get a number.
std::vector<std::string> class_folder_names(const std::vector<std::string>& class_names);

/// What became of a picture.
enum class Placement {
  kPlaced,
  kRenamed,      ///< as name-2.jpg, name-3.jpg, …, since others have its name
  kAlreadyThere  ///< a file of its name (or such a number) and content; neither was touched
};

/// Puts `picture` into `folder`, which is made if need be. Never replaces a file, and is never seen half done
/// under a final name: a copy gets its name when it is complete, and of a picture moved to another file
/// system the original is removed after the copy has reached the disk. Throws DataError if it is for
/// `picture` that this cannot be done (gone, may not be read or removed), ConfigError if it is for `folder`.
Placement place_picture(const std::filesystem::path& picture, const std::filesystem::path& folder,
                        SortMode mode);

/// Sorts pictures into a folder per class, and a folder for doubtful ones.
class PictureSorter {
 public:
  /// Pictures whose probability is below `threshold` are doubtful; 0: none. Throws ConfigError if `folder`
  /// cannot be written, or if a class's folder is that of the doubtful ones.
  PictureSorter(const std::filesystem::path& folder, const std::vector<std::string>& class_names,
                SortMode mode, double threshold);

  /// Puts `picture` where it belongs. Throws as place_picture.
  void sort(const std::filesystem::path& picture, std::int64_t label, double probability);

  /// The folder and those in it that pictures go to: none of what lies there is an input.
  std::vector<std::filesystem::path> folders() const;

  std::int64_t placed() const { return placed_; }  ///< the renamed ones included
  std::int64_t renamed() const { return renamed_; }
  std::int64_t already_there() const { return already_there_; }
  std::int64_t unsure() const { return unsure_; }  ///< placed or already there

 private:
  std::filesystem::path folder_;
  std::vector<std::filesystem::path> class_folders_;  // by label
  SortMode mode_;
  double threshold_;
  std::set<std::filesystem::path> looked_at_;  // folders, for what killed runs left there
  std::int64_t placed_ = 0;
  std::int64_t renamed_ = 0;
  std::int64_t already_there_ = 0;
  std::int64_t unsure_ = 0;
};

}  // namespace clip_lora::cli
