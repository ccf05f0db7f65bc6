#include "picture_store.hpp"

#include <algorithm>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/core/parallel.hpp"

namespace clip_lora::data {
namespace {

void stop_if_interrupted() {
  if (const int signal = pending_interrupt(); signal != 0) {
    throw Interrupted(signal, "interrupted while the training images were being read");
  }
}

std::uint64_t decoded_bytes(const image::ImageSize& size) {
  return static_cast<std::uint64_t>(size.height) * static_cast<std::uint64_t>(size.width) * 3;
}

/// In order, each size that what is left of the budget has room for.
std::vector<std::size_t> choose_within(std::uint64_t budget_bytes, const std::vector<std::uint64_t>& sizes) {
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > budget_bytes) continue;
    budget_bytes -= sizes[i];
    chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

PictureStore::PictureStore(std::vector<Item> items, image::Orientation orientation,
                           std::uint64_t budget_bytes, int workers)
    : items_(std::move(items)), orientation_(orientation) {
  std::unordered_map<std::string_view, std::size_t> known;
  std::vector<std::string_view> files;
  for (const Item& item : items_) {
    const auto [entry, is_new] = known.try_emplace(item.image, files.size());
    if (is_new) files.push_back(item.image);
    picture_of_item_.push_back(entry->second);
  }

  std::vector<std::uint64_t> sizes(files.size());
  parallel_for(files.size(), workers, [&](std::size_t i) {
    stop_if_interrupted();
    sizes[i] = decoded_bytes(image::read_image_size(files[i]));
  });

  pictures_.resize(files.size());
  const std::vector<std::size_t> kept = choose_within(budget_bytes, sizes);
  parallel_for(kept.size(), workers, [&](std::size_t i) {
    stop_if_interrupted();
    pictures_[kept[i]] =
        std::make_shared<const image::Image>(image::decode_image(files[kept[i]], orientation_));
  });
}

void PictureStore::with_image(std::size_t item, const std::function<void(const image::Image&)>& use) const {
  if (const auto& kept = pictures_[picture_of_item_[item]]) return use(*kept);
  // Each worker decodes all its images into the same memory.
  thread_local std::vector<std::uint8_t> memory;
  image::Image image = image::decode_image(items_[item].image, orientation_, std::move(memory));
  use(image);
  memory = std::move(image.rgb);
}

std::size_t PictureStore::items_in_memory() const {
  return static_cast<std::size_t>(std::ranges::count_if(
      picture_of_item_, [this](std::size_t picture) { return pictures_[picture] != nullptr; }));
}

}  // namespace clip_lora::data
