#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/io/lease.hpp"
#include "clip_lora/io/mapped_file.hpp"
#include "new_file.hpp"

namespace clip_lora::data {

/// The first bytes of a cache file.
struct CacheHeader {
  std::array<char, 8> magic = {'C', 'L', 'I', 'P', 'V', 'I', 'E', 'W'};
  std::uint32_t version = 1;  ///< of the layout
  std::uint32_t size_px = 0;  ///< R, the views' side
  std::uint64_t count = 0;    ///< N, how many there are
  std::array<std::uint8_t, 16> key{};
};
static_assert(sizeof(CacheHeader) == 40);

/// The evaluation views of a list of images, kept in a file for later runs: the first pass over the images
/// makes it, later ones read it.
///
/// `<folder>/<key in hexadecimal>.pixels`, numbers in the machine's byte order:
///   CacheHeader
///   uint64[N]          checksum of each view
///   uint8[N, R, R, 3]  the views
/// The key is XXH3-128 of the layout's and the pixels' version, every field of the preprocessing, and the
/// images' absolute paths. A checksum is XXH3-64 of a view's bytes, its seed a hash of the image file's size
/// and time of last change in nanoseconds: it is right only for a view that is undamaged and of the file as
/// it is now. So a changed image costs no more than itself, and the first batch need not wait until all files
/// have been looked at. Labels are not kept.
class EvaluationCache {
 public:
  /// Opens the file, or begins a new one where there is none, where its size or header are wrong, or where
  /// some of a sample of its views are damaged or out of date. What cannot be written is warned of, once per
  /// folder, and done without. `items`, at least one, must outlive this. With `wait`, another process that
  /// makes the same file at the moment is waited for; throws Interrupted meanwhile.
  EvaluationCache(const std::filesystem::path& folder, const std::vector<Item>& items,
                  const image::Preprocessing& preprocessing, bool wait);

  /// The file's views from that of an item on, in memory that may be written: nothing of it reaches the file.
  /// Null where there is no file.
  std::shared_ptr<std::uint8_t> kept_views(std::size_t item) const;

  /// Makes `pixels`, which are those of kept_views() if there are any, the view of an item: by `decode`,
  /// which writes them, unless the kept view is right. Throws what `decode` throws. Thread-safe for different
  /// items.
  void fill(std::size_t item, std::uint8_t* pixels, const std::function<void()>& decode);

  /// After the pass: gives a new file its name if it has all views, and writes one anew of which some were
  /// not right. Without it, nothing stays behind.
  void finish();

 private:
  std::size_t view_bytes() const;
  std::size_t view_offset(std::size_t item) const;
  std::uint64_t checksum(std::uint64_t stamp, const std::uint8_t* pixels) const;
  std::uint64_t& kept_checksum(std::size_t item) const;
  bool is_sample_right() const;
  void remove_what_the_killed_left() const;
  void wait_for_turn();
  void open_file();
  void begin_file();
  void keep(std::size_t item, const std::uint8_t* pixels, std::uint64_t stamp);
  void give_up(const std::string& reason);

  const std::vector<Item>& items_;
  CacheHeader header_;
  std::filesystem::path path_;
  std::shared_ptr<io::MappedFile> file_;  // of an earlier run, or
  std::unique_ptr<io::Lease> lease_;      // of the new file, with `wait`
  std::optional<NewFile> new_file_;       // that of this run
  std::vector<std::uint64_t> checksums_;  // of the new file
  std::atomic<std::size_t> written_ = 0;  // views in the new file, or replaced in the memory of the other
  std::atomic<bool> given_up_ = false;
};

}  // namespace clip_lora::data
