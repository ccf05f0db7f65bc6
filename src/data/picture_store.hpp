#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "picture_files.hpp"

namespace clip_lora::data {

/// Training images, of which as many stay in memory, decoded, as a budget allows. A file that several items
/// name is kept once.
class PictureStore {
 public:
  /// Reads the size of every image from its header, and decodes, in order, each that the budget still has
  /// room for. Throws DataError for an image that cannot be read, Interrupted once a signal is pending.
  PictureStore(std::vector<Item> items, image::Orientation orientation, std::uint64_t budget_bytes,
               int workers);

  const std::vector<Item>& items() const { return items_; }

  /// Calls `use` with the decoded image of an item: the kept one, or decoded now. Throws DataError.
  /// Thread-safe.
  void with_image(std::size_t item, const std::function<void(const image::Image&)>& use) const;

  /// Items whose images are kept.
  std::size_t items_in_memory() const;

 private:
  std::vector<Item> items_;
  image::Orientation orientation_;
  PictureFiles files_;
  std::vector<std::shared_ptr<const image::Image>> pictures_;  // by file; null: not kept
};

}  // namespace clip_lora::data
