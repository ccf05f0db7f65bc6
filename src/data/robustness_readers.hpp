#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/image_folder.hpp"
#include "clip_lora/data/robustness.hpp"

namespace clip_lora::data {

inline constexpr int kImageNetClasses = 1000;

/// Where ImageNet-Sketch may lie below --root_path; its thousand class folders tell ImageNet's labels.
const std::vector<std::string>& sketch_folders();

/// The class folders of data set `name` with their pictures. Throws DataError if one is empty, or if they are
/// not `expected` many.
std::vector<ClassFolder> list_shifted_classes(const std::string& name, const std::filesystem::path& folder,
                                              std::size_t expected);

/// ObjectNet's images/ and mappings/ in `folder`.
ShiftedImages read_objectnet(const std::filesystem::path& folder, const std::filesystem::path& root_path);

}  // namespace clip_lora::data
