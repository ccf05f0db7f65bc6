#include "clip_lora/core/memory.hpp"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string>

namespace clip_lora {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kAssumedBytes = std::uint64_t{1} << 30;

/// The number after `key` in a file of lines "key number …".
std::optional<std::uint64_t> number_after(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  for (std::string word; file >> word; file.ignore(1 << 10, '\n')) {
    std::uint64_t number = 0;
    if (word == key && file >> number) return number;
    file.clear();
  }
  return std::nullopt;
}

/// A file of one number; nothing for "max".
std::optional<std::uint64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  return file >> number ? std::optional(number) : std::nullopt;
}

/// Where a version of control groups says what a group may use and does use.
struct Hierarchy {
  const char* controller;  ///< in /proc/self/cgroup
  const char* mount;
  const char* limit;
  const char* usage;
  std::array<const char*, 2> cached_files;  ///< in memory.stat; counted as used, but given back when needed
};

constexpr std::array<Hierarchy, 2> kHierarchies = {
    {{"", "sys/fs/cgroup", "memory.max", "memory.current", {"active_file", "inactive_file"}},
     {"memory",
      "sys/fs/cgroup/memory",
      "memory.limit_in_bytes",
      "memory.usage_in_bytes",
      {"total_active_file", "total_inactive_file"}}}};

/// This process's group, relative to the mount: a line is "number:controllers:/path".
std::optional<fs::path> own_group(const fs::path& root, const std::string& controller) {
  std::ifstream file(root / "proc/self/cgroup");
  for (std::string line; std::getline(file, line);) {
    std::istringstream fields(line);
    std::string number;
    std::string controllers;
    std::string path;
    std::getline(fields, number, ':');
    std::getline(fields, controllers, ':');
    std::getline(fields, path);
    if (controllers == controller) return fs::path(path).relative_path();
  }
  return std::nullopt;
}

/// What the limit of one group leaves, if it has one.
std::optional<std::uint64_t> left_in_group(const fs::path& group, const Hierarchy& hierarchy) {
  const auto limit = number_in(group / hierarchy.limit);
  const auto usage = number_in(group / hierarchy.usage);
  if (!limit || !usage) return std::nullopt;
  std::uint64_t cached = 0;
  for (const char* key : hierarchy.cached_files)
    cached += number_after(group / "memory.stat", key).value_or(0);
  const std::uint64_t used = *usage - std::min(*usage, cached);
  return *limit - std::min(*limit, used);
}

/// The least that this process's group and those above it leave. In a container the group's path may be that
/// outside of it, of which only the mount itself can be seen.
std::optional<std::uint64_t> left_in_hierarchy(const fs::path& root, const Hierarchy& hierarchy) {
  auto group = own_group(root, hierarchy.controller);
  if (!group) return std::nullopt;
  std::optional<std::uint64_t> least;
  while (true) {
    const auto left = left_in_group(root / hierarchy.mount / *group, hierarchy);
    if (left) least = std::min(*left, least.value_or(*left));
    if (group->empty()) return least;
    *group = group->parent_path();
  }
}

}  // namespace

std::uint64_t available_memory_bytes(const fs::path& root) {
  std::optional<std::uint64_t> least;
  if (const auto kibibytes = number_after(root / "proc/meminfo", "MemAvailable:")) least = *kibibytes * 1024;
  for (const Hierarchy& hierarchy : kHierarchies) {
    const auto left = left_in_hierarchy(root, hierarchy);
    if (left) least = std::min(*left, least.value_or(*left));
  }
  return least.value_or(kAssumedBytes);
}

std::string megabytes(std::uint64_t bytes) { return std::to_string(bytes / 1'000'000) + " MB"; }

std::uint64_t peak_resident_bytes() { return number_after("/proc/self/status", "VmHWM:").value_or(0) * 1024; }

void reset_peak_resident() {
  std::ofstream("/proc/self/clear_refs") << "5";  // proc_pid_clear_refs(5): resets VmHWM
}

void reuse_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());
  mallopt(M_TOP_PAD, 64 << 20);
#endif
}

}  // namespace clip_lora
