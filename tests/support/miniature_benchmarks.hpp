#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::testing {

constexpr int kImageNetClasses = 1000;

/// Whose folder names a data set on this disk has. Where they are alike, ImageNet's `images/train` and
/// `train` are the two.
enum class FolderNames { kCoop, kRelease };

/// `--dataset` of the eleven.
std::vector<std::string> miniature_names();

/// Writes a miniature of a benchmark below `root`, in the folders, file names and lists of the real one:
/// three classes with two training, one validation and two test pictures each. ImageNet by the release's
/// names is a thousand class folders, which are CLIP's class names, of hard-linked pictures; by CoOp's it has
/// a classnames.txt.
void write_miniature(const std::filesystem::path& root, const std::string& name, FolderNames folder_names);

/// The WordNet id of a class of the miniature of ImageNet.
std::string miniature_wordnet_id(int label);

/// Writes a picture of the shape that stands for class `label`, which `number` varies. A PNG whatever its
/// name, as the content decides. Its folder is made.
void write_miniature_picture(const std::filesystem::path& path, int label, int number);

/// How many classes it has.
int miniature_classes(const std::string& name, FolderNames folder_names);

}  // namespace clip_lora::testing
