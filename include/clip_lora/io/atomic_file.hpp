#pragma once

#include <filesystem>
#include <functional>
#include <string_view>

namespace clip_lora::io {

/// Writes a file so that it is either there whole or not at all: `write` gets a temporary name in the same folder, which
/// is flushed to the disk and renamed to `path` afterwards and removed if anything fails. Makes missing folders.
/// Throws ConfigError naming the path and the system's reason.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path& temporary)>& write);

/// The same for bytes at hand.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

/// Makes `folder` and proves that a file can be written there. Throws ConfigError naming the path and the reason.
void require_writable(const std::filesystem::path& folder);

}  // namespace clip_lora::io
