#pragma once

#include <filesystem>
#include <functional>
#include <vector>

namespace clip_lora::cli {

/// Throws ConfigError if one of `paths` is there, unless `force`.
void require_free(const std::vector<std::filesystem::path>& paths, bool force);

/// Throws ConfigError naming `file` and the reason if it cannot be written: it is a folder, or the folder
/// that it is to be in cannot be made or written.
void require_writable_file(const std::filesystem::path& file);

/// Writes a folder whole or not at all: `write` fills a temporary one beside it, which then takes the place
/// of `folder`. One that is there already is replaced only if it holds nothing but files of the same names.
/// Throws ConfigError naming the path and the reason, and Interrupted, in both cases leaving everything as it
/// was.
void write_folder(const std::filesystem::path& folder,
                  const std::function<void(const std::filesystem::path& temporary)>& write);

/// Writes files of one folder all or not at all: `write` makes them, by the same names, in a temporary folder
/// beside the first. Files that are there already are replaced. Throws as write_folder.
void write_files(const std::vector<std::filesystem::path>& files,
                 const std::function<void(const std::filesystem::path& temporary)>& write);

}  // namespace clip_lora::cli
