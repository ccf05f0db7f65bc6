#include "picture_files.hpp"

#include <string_view>
#include <unordered_map>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/parallel.hpp"
#include "clip_lora/image/codec.hpp"

namespace clip_lora::data {

PictureFiles::PictureFiles(const std::vector<Item>& items) {
  std::unordered_map<std::string_view, std::size_t> known;
  of_item.reserve(items.size());
  for (const Item& item : items) {
    const auto [entry, is_new] = known.try_emplace(item.image, paths.size());
    if (is_new) paths.push_back(item.image);
    of_item.push_back(entry->second);
  }
}

std::vector<image::ImageSize> read_sizes(const PictureFiles& files, int workers) {
  std::vector<image::ImageSize> sizes(files.paths.size());
  parallel_for(files.paths.size(), workers, [&](std::size_t i) {
    stop_reading_if_interrupted();
    sizes[i] = image::read_image_size(files.paths[i]);
  });
  return sizes;
}

std::size_t decoded_bytes(const image::ImageSize& size) {
  return static_cast<std::size_t>(size.height) * static_cast<std::size_t>(size.width) * 3;
}

void stop_reading_if_interrupted() {
  if (const int signal = pending_interrupt(); signal != 0) {
    throw Interrupted(signal, "interrupted while the training images were being read");
  }
}

}  // namespace clip_lora::data
