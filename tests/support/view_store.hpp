#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "clip_lora/image/image.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/ops/patches.hpp"

namespace clip_lora::testing {

/// Pictures one behind the other, as ops::resized_views wants them, and views of them.
class ViewStore {
 public:
  explicit ViewStore(std::uint32_t seed) : generator_(seed) {}

  /// A picture of noise, and of black and white pixels that make the filter overshoot.
  void add_picture(int height, int width) {
    image::Image picture{height, width,
                         std::vector<std::uint8_t>(static_cast<std::size_t>(height) * width * 3)};
    for (std::uint8_t& byte : picture.rgb) {
      const auto number = generator_();
      byte = static_cast<std::uint8_t>(number % 3 == 0 ? (number >> 8 & 1) * 255 : number >> 16 & 255);
    }
    begins_.push_back(static_cast<std::int64_t>(bytes_.size()));
    bytes_.insert(bytes_.end(), picture.rgb.begin(), picture.rgb.end());
    pictures_.push_back(std::move(picture));
  }

  void add_view(std::size_t picture, const image::TrainingView& view) {
    const image::Image& image = pictures_[picture];
    views_.push_back({picture, view});
    requests_.push_back({.begin = begins_[picture],
                         .width = image.width,
                         .height = image.height,
                         .top = view.box.top,
                         .left = view.box.left,
                         .box_height = view.box.height,
                         .box_width = view.box.width,
                         .flip = view.flip ? 1 : 0});
    largest_side_ = std::max({largest_side_, view.box.height, view.box.width});
  }

  /// Any boxes of any of the pictures.
  void add_random_views(int count) {
    for (int i = 0; i < count; ++i) {
      const auto picture = static_cast<std::size_t>(draw(0, static_cast<int>(pictures_.size()) - 1));
      const int height = draw(1, pictures_[picture].height);
      const int width = draw(1, pictures_[picture].width);
      const int top = draw(0, pictures_[picture].height - height);
      const int left = draw(0, pictures_[picture].width - width);
      add_view(picture, {{top, left, height, width}, draw(0, 1) == 1});
    }
  }

  int draw(int least, int most) {
    return least + static_cast<int>(generator_() % static_cast<std::uint32_t>(most - least + 1));
  }

  at::Tensor store() const {
    const auto size = static_cast<std::int64_t>(bytes_.size());
    at::Tensor store = at::full({size + ops::kStorePadding}, 200, at::kByte);
    std::ranges::copy(bytes_, store.data_ptr<std::uint8_t>());
    return store;
  }

  at::Tensor requests() const {
    const auto count = static_cast<std::int64_t>(requests_.size());
    const auto bytes = static_cast<std::int64_t>(sizeof(ops::ViewRequest));
    return at::from_blob(const_cast<ops::ViewRequest*>(requests_.data()), {count, bytes}, at::kByte).clone();
  }

  std::vector<ops::ViewRequest>& request_list() { return requests_; }
  std::size_t views() const { return views_.size(); }
  int largest_side() const { return largest_side_; }

  /// What image/ makes of them, [B, R, R, 3].
  at::Tensor expected(int size_px) const {
    std::vector<at::Tensor> seen = {at::empty({0, size_px, size_px, 3}, at::kByte)};
    for (const auto& [picture, view] : views_) {
      image::Image image = image::training_view(pictures_[picture], view, {.size_px = size_px});
      seen.push_back(at::from_blob(image.rgb.data(), {1, size_px, size_px, 3}, at::kByte).clone());
    }
    return at::cat(seen);
  }

 private:
  std::mt19937 generator_;
  std::vector<image::Image> pictures_;
  std::vector<std::int64_t> begins_;
  std::vector<std::uint8_t> bytes_;
  std::vector<std::pair<std::size_t, image::TrainingView>> views_;
  std::vector<ops::ViewRequest> requests_;
  int largest_side_ = 1;
};

/// Strips over a hundred times as tall as wide, whose height is shrunk first, and some that only just are
/// not.
inline ViewStore tall_strips() {
  ViewStore store(3);
  store.add_picture(301, 3);
  store.add_picture(1210, 12);
  store.add_picture(5, 700);
  for (const bool flip : {false, true}) {
    store.add_view(0, {{0, 0, 301, 3}, flip});
    store.add_view(0, {{0, 1, 300, 2}, flip});
    store.add_view(0, {{1, 0, 300, 3}, flip});
    store.add_view(1, {{5, 1, 1205, 11}, flip});
    store.add_view(1, {{0, 11, 1210, 1}, flip});
    store.add_view(2, {{1, 3, 1, 690}, flip});
  }
  return store;
}

}  // namespace clip_lora::testing
