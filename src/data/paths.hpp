#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

// All throw DataError with the reason where it cannot be told, as without permission for a folder above.

/// Whether there is a file or folder.
bool is_there(const std::filesystem::path& path);

/// Whether there is a folder, or a link to one.
bool is_folder(const std::filesystem::path& path);

/// The first of the `folders` below `root_path` that exists. Throws MissingData that lists all tried.
std::filesystem::path first_folder(const std::string& dataset, const std::vector<std::string>& folders,
                                   const std::filesystem::path& root_path);

}  // namespace clip_lora::data
