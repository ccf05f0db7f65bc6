#include "picture_store.hpp"

#include <algorithm>
#include <utility>

#include "clip_lora/core/parallel.hpp"

namespace clip_lora::data {
namespace {

/// In order, each size that what is left of the budget has room for.
std::vector<std::size_t> choose_within(std::uint64_t budget_bytes,
                                       const std::vector<image::ImageSize>& sizes) {
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (decoded_bytes(sizes[i]) > budget_bytes) continue;
    budget_bytes -= decoded_bytes(sizes[i]);
    chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

PictureStore::PictureStore(std::vector<Item> items, image::Orientation orientation,
                           std::uint64_t budget_bytes, int workers)
    : items_(std::move(items)), orientation_(orientation), files_(items_), pictures_(files_.paths.size()) {
  const std::vector<std::size_t> kept = choose_within(budget_bytes, read_sizes(files_, workers));
  parallel_for(kept.size(), workers, [&](std::size_t i) {
    stop_reading_if_interrupted();
    pictures_[kept[i]] =
        std::make_shared<const image::Image>(image::decode_image(files_.paths[kept[i]], orientation_));
  });
}

void PictureStore::with_image(std::size_t item, const std::function<void(const image::Image&)>& use) const {
  if (const auto& kept = pictures_[files_.of_item[item]]) return use(*kept);
  // Each worker decodes all its images into the same memory.
  thread_local std::vector<std::uint8_t> memory;
  image::Image image = image::decode_image(items_[item].image, orientation_, std::move(memory));
  use(image);
  memory = std::move(image.rgb);
}

std::size_t PictureStore::items_in_memory() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      files_.of_item, [this](std::size_t picture) { return pictures_[picture] != nullptr; }));
}

}  // namespace clip_lora::data
