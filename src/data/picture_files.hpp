#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/image.hpp"

namespace clip_lora::data {

/// The files that training items name, each once, counted as they first appear.
struct PictureFiles {
  explicit PictureFiles(const std::vector<Item>& items);

  std::vector<std::string> paths;
  std::vector<std::size_t> of_item;  ///< index of each item's file
};

/// The sizes that the files' headers tell. Throws DataError for one that cannot be read, Interrupted once a
/// signal is pending.
std::vector<image::ImageSize> read_sizes(const PictureFiles& files, int workers);

/// What a decoded picture of this size takes.
std::size_t decoded_bytes(const image::ImageSize& size);

/// Throws Interrupted once a signal is pending.
void stop_reading_if_interrupted();

}  // namespace clip_lora::data
