#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

struct EvaluationViewsOptions {
  std::uint64_t memory_bytes = 0;     ///< that they may take; 0: half of what is free
  std::filesystem::path folder = {};  ///< for the file of those that take more; empty: the system's, TMPDIR
};

/// The evaluation views of one list of images for several passes over it in this process: the first
/// EvaluationLoader that is given them fills them in, those after it read. They lie in memory, or in a file
/// without a name, which the system keeps in memory as far as it can, or, where there is no room for it
/// either, nowhere, so that each pass decodes anew. log_detail says which.
class EvaluationViews {
 public:
  /// For `count` views of size_px · size_px pixels.
  EvaluationViews(std::size_t count, int size_px, const EvaluationViewsOptions& options = {});
  ~EvaluationViews();
  EvaluationViews(const EvaluationViews&) = delete;
  EvaluationViews& operator=(const EvaluationViews&) = delete;

  std::size_t count() const { return is_kept_.size(); }

  /// Copies view `item` to `pixels` [R, R, 3] if it is there. Thread-safe, as keep() is.
  bool read(std::size_t item, std::uint8_t* pixels) const;

  /// Takes view `item` in. Not twice at once for the same one.
  void keep(std::size_t item, const std::uint8_t* pixels);

 private:
  std::size_t bytes() const { return count() * view_bytes_; }
  /// Finds a place for the views, and says which.
  std::string place(const EvaluationViewsOptions& options);
  bool map(int file);

  std::size_t view_bytes_;
  std::vector<std::atomic<bool>> is_kept_;
  std::uint8_t* views_ = nullptr;  // null: nowhere
};

}  // namespace clip_lora::data
