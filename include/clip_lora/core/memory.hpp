#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace clip_lora {

/// Bytes that can be allocated without swapping: the smaller of MemAvailable in /proc/meminfo and what the
/// limits of the control group (version 1 or 2) and of those above it leave, cached files not counted; 1 GiB
/// where neither can be read. `root` holds proc/ and sys/.
std::uint64_t available_memory_bytes(const std::filesystem::path& root = "/");

/// 12345678 → "12 MB".
std::string megabytes(std::uint64_t bytes);

/// The most memory that the process had resident at any time since reset_peak_resident(), or since it began where the
/// system lets nobody reset it; 0 where it cannot be read.
std::uint64_t peak_resident_bytes();
void reset_peak_resident();

/// From now on freed memory stays with the process, where the C library is glibc: tensors of many megabytes would
/// otherwise be fresh pages each time, which cost more than what is computed with them.
void reuse_freed_memory();

}  // namespace clip_lora
