#include "clip_lora/data/loader.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "clip_lora/core/parallel.hpp"
#include "clip_lora/image/codec.hpp"

namespace clip_lora::data {
namespace {

/// A batch of zeros for `count` square pictures.
Batch make_batch(std::size_t count, int size_px) {
  const auto batch_size = static_cast<std::int64_t>(count);
  return {at::zeros({batch_size, size_px, size_px, 3}, at::kByte), at::zeros({batch_size}, at::kLong)};
}

void put(const Batch& batch, std::size_t row, const image::Image& view, int label) {
  std::memcpy(batch.pixels.data_ptr<std::uint8_t>() + row * view.rgb.size(), view.rgb.data(),
              view.rgb.size());
  batch.labels.data_ptr<std::int64_t>()[row] = label;
}

/// Fisher and Yates's shuffle; std::shuffle's order differs between standard libraries.
void shuffle(std::vector<std::size_t>& order, std::mt19937_64& generator) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
}

at::Tensor per_channel(const std::array<float, 3>& values, at::Device device) {
  return at::tensor(at::ArrayRef<float>(values)).view({1, 3, 1, 1}).to(device);
}

Batch evaluation_batch(const std::vector<Item>& items, std::size_t first, std::size_t count,
                       const image::Preprocessing& preprocessing) {
  const Batch batch = make_batch(count, preprocessing.size_px);
  parallel_for(count, hardware_workers(), [&](std::size_t row) {
    const Item& item = items[first + row];
    put(batch, row, image::evaluation_view(image::decode_image(item.image), preprocessing), item.label);
  });
  return batch;
}

}  // namespace

at::Tensor normalise(const at::Tensor& pixels, const image::Preprocessing& preprocessing, at::Device device,
                     at::ScalarType dtype) {
  // [B, R, R, 3] -> [B, 3, R, R]
  const auto values = pixels.to(device).permute({0, 3, 1, 2}).to(at::kFloat).contiguous();
  // Divided, as torchvision does it: for the usual 1/255 the product would round otherwise.
  values.div_(1.0 / preprocessing.rescale_factor)
      .sub_(per_channel(preprocessing.mean, device))
      .div_(per_channel(preprocessing.standard_deviation, device));
  return values.to(dtype);
}

std::vector<image::Image> decode_all(const std::vector<Item>& items) {
  std::vector<image::Image> images(items.size());
  parallel_for(items.size(), hardware_workers(),
               [&](std::size_t i) { images[i] = image::decode_image(items[i].image); });
  return images;
}

TrainingLoader::TrainingLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                               int batch_size, std::uint64_t seed)
    : items_(std::move(items)),
      images_(decode_all(items_)),
      preprocessing_(preprocessing),
      batch_size_(batch_size),
      generator_(seed),
      order_(items_.size()),
      position_(items_.size()) {
  assert(!items_.empty() && batch_size >= 1);
  std::iota(order_.begin(), order_.end(), std::size_t{0});
  start_next();
}

// The future waits in its destructor for the batch in work, which looks at the other members.
TrainingLoader::~TrainingLoader() = default;

Batch TrainingLoader::next() {
  Batch batch = next_.get();
  start_next();
  return batch;
}

void TrainingLoader::start_next() {
  if (position_ == order_.size()) {
    shuffle(order_, generator_);
    position_ = 0;
  }
  const std::size_t count = std::min(order_.size() - position_, static_cast<std::size_t>(batch_size_));
  const auto first = order_.begin() + static_cast<std::ptrdiff_t>(position_);
  std::vector<std::size_t> indices(first, first + static_cast<std::ptrdiff_t>(count));
  position_ += count;
  // A seed per picture, drawn here in order: the views do not depend on which thread makes which.
  std::vector<std::uint64_t> view_seeds(count);
  std::generate(view_seeds.begin(), view_seeds.end(), std::ref(generator_));
  next_ = std::async(std::launch::async,
                     [this, indices = std::move(indices), view_seeds = std::move(view_seeds)] {
                       return prepare(indices, view_seeds);
                     });
}

Batch TrainingLoader::prepare(const std::vector<std::size_t>& indices,
                              const std::vector<std::uint64_t>& view_seeds) const {
  const Batch batch = make_batch(indices.size(), preprocessing_.size_px);
  parallel_for(indices.size(), hardware_workers(), [&](std::size_t row) {
    const image::Image& image = images_[indices[row]];
    std::mt19937_64 generator(view_seeds[row]);
    const auto view = image::draw_training_view(image.height, image.width, generator);
    put(batch, row, image::training_view(image, view, preprocessing_), items_[indices[row]].label);
  });
  return batch;
}

EvaluationLoader::EvaluationLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                                   int batch_size)
    : items_(std::move(items)), preprocessing_(preprocessing), batch_size_(batch_size) {
  assert(batch_size >= 1);
  start_next();
}

EvaluationLoader::~EvaluationLoader() = default;

std::optional<Batch> EvaluationLoader::next() {
  if (!next_.valid()) return std::nullopt;
  Batch batch = next_.get();
  start_next();
  return batch;
}

void EvaluationLoader::start_next() {
  if (position_ == items_.size()) return;
  const std::size_t first = position_;
  const std::size_t count = std::min(items_.size() - first, static_cast<std::size_t>(batch_size_));
  position_ += count;
  next_ = std::async(std::launch::async,
                     [this, first, count] { return evaluation_batch(items_, first, count, preprocessing_); });
}

}  // namespace clip_lora::data
