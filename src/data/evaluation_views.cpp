#include "clip_lora/data/evaluation_views.hpp"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <string>

#include "clip_lora/core/log.hpp"
#include "clip_lora/core/memory.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

constexpr int kNoFile = -1;

fs::path folder_of(const EvaluationViewsOptions& options) {
  if (!options.folder.empty()) return options.folder;
  std::error_code error;
  const fs::path folder = fs::temp_directory_path(error);
  return error ? fs::path("/tmp") : folder;
}

/// Whether the folder lies on a disk, and `bytes` are at most half of what is free there.
bool has_room(const fs::path& folder, std::uint64_t bytes) {
  struct statfs status {};
  if (::statfs(folder.c_str(), &status) != 0) return false;
  if (status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC)
    return false;  // memory, of which there is none
  return bytes <= std::uint64_t{status.f_bavail} * static_cast<std::uint64_t>(status.f_bsize) / 2;
}

/// A file without a name, of which `bytes` are reserved, or kNoFile.
int open_unnamed(const fs::path& folder, std::uint64_t bytes) {
  std::string path = (folder / "clip_lora_views_XXXXXX").string();
  const int file = ::mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) return kNoFile;
  ::unlink(path.c_str());
  // Reserved, since writing to a map of a full disk would end the process.
  if (::fallocate(file, 0, 0, static_cast<off_t>(bytes)) == 0) return file;
  ::close(file);
  return kNoFile;
}

}  // namespace

EvaluationViews::EvaluationViews(std::size_t count, int size_px, const EvaluationViewsOptions& options)
    : view_bytes_(static_cast<std::size_t>(size_px) * static_cast<std::size_t>(size_px) * 3),
      is_kept_(count) {
  if (count > 0)
    log_detail(std::to_string(count) + " decoded images, " + megabytes(bytes()) + ", " + place(options));
}

std::string EvaluationViews::place(const EvaluationViewsOptions& options) {
  const std::uint64_t memory =
      options.memory_bytes != 0 ? options.memory_bytes : available_memory_bytes() / 2;
  if (bytes() <= memory && map(kNoFile)) return "stay in memory for the next look at them";
  const fs::path folder = folder_of(options);
  const int file = has_room(folder, bytes()) ? open_unnamed(folder, bytes()) : kNoFile;
  const bool is_mapped = file != kNoFile && map(file);
  if (file != kNoFile) ::close(file);
  if (is_mapped) return "stay in a temporary file in '" + folder.string() + "' for the next look at them";
  return "find no room in memory or in '" + folder.string() + "': each look decodes them again";
}

EvaluationViews::~EvaluationViews() {
  if (views_ != nullptr) ::munmap(views_, bytes());
}

bool EvaluationViews::map(int file) {
  const int flags = file == kNoFile ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
  void* const views = ::mmap(nullptr, bytes(), PROT_READ | PROT_WRITE, flags, file, 0);
  if (views == MAP_FAILED) return false;
  views_ = static_cast<std::uint8_t*>(views);
  ::madvise(views, bytes(), MADV_HUGEPAGE);  // a help where there is one; without it pages of 4 KiB do
  return true;
}

bool EvaluationViews::read(std::size_t item, std::uint8_t* pixels) const {
  if (!is_kept_[item].load(std::memory_order_acquire)) return false;
  std::memcpy(pixels, views_ + item * view_bytes_, view_bytes_);
  return true;
}

void EvaluationViews::keep(std::size_t item, const std::uint8_t* pixels) {
  if (views_ == nullptr) return;
  std::memcpy(views_ + item * view_bytes_, pixels, view_bytes_);
  is_kept_[item].store(true, std::memory_order_release);
}

}  // namespace clip_lora::data
