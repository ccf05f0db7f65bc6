#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace clip_lora::io {

/// Writes a file so that it is either there whole or not at all: `write` gets a temporary name in the same folder, which
/// is flushed to the disk and renamed to `path` afterwards and removed if anything fails. Makes missing folders.
/// Throws ConfigError naming the path and the system's reason.
void write_atomically(const std::filesystem::path& path,
                      const std::function<void(const std::filesystem::path& temporary)>& write);

/// The same for bytes at hand.
void write_atomically(const std::filesystem::path& path, std::string_view bytes);

/// A name beside `path` that no other process, of any machine, and no other thread uses:
/// `<path>.tmp-<process_tag()>-<number>`. What is written atomically has such a name until it is whole.
std::filesystem::path temporary_name(const std::filesystem::path& path);

/// Writes a file that is not there yet, in one go and without waiting for the disk. Throws ConfigError naming the
/// path and the system's reason, and leaves no file then.
void write_new_file(const std::filesystem::path& path, std::string_view bytes);

/// Whose temporary files go.
enum class Abandoned {
  kOfTheDead,     ///< those of processes that are surely no more
  kOfAllButLive,  ///< those too of whom nothing is known, such as another machine's processes
};

/// Removes what killed processes left in `folder`, not below it. Files of live processes of this machine stay, and
/// so does what cannot be removed.
void remove_temporaries(const std::filesystem::path& folder, Abandoned which);

/// Removes the temporary files and folders of `path`, by temporary_name().
void remove_temporaries_of(const std::filesystem::path& path, Abandoned which = Abandoned::kOfTheDead);

/// Throws the ConfigError of a file or folder that cannot be written.
[[noreturn]] void throw_unwritable(const std::filesystem::path& path, const std::string& reason);

/// Makes `folder` and proves that a file can be written there; what processes left that were killed at it goes. Throws
/// ConfigError naming the path and the reason.
void require_writable(const std::filesystem::path& folder);

}  // namespace clip_lora::io
