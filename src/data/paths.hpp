#pragma once

#include <filesystem>

namespace clip_lora::data {

// Both throw DataError with the reason where it cannot be told, as without permission for a folder above.

/// Whether there is a file or folder.
bool is_there(const std::filesystem::path& path);

/// Whether there is a folder, or a link to one.
bool is_folder(const std::filesystem::path& path);

}  // namespace clip_lora::data
