#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>
#include <random>
#include <utility>

#include "batch_queue.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/data/loader.hpp"
#include "picture_store.hpp"

namespace clip_lora::data {
namespace {

std::uint64_t budget_bytes(const TrainingLoaderOptions& options) {
  return options.image_memory_bytes != 0 ? options.image_memory_bytes : available_memory_bytes() / 2;
}

/// Fisher and Yates's shuffle; std::shuffle's order differs between standard libraries.
void shuffle(std::vector<std::size_t>& order, std::mt19937_64& generator) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
}

}  // namespace

class TrainingLoader::Impl {
 public:
  Impl(std::vector<Item> items, const image::Preprocessing& preprocessing,
       const TrainingLoaderOptions& options)
      : preprocessing_(preprocessing),
        batch_size_(static_cast<std::size_t>(options.batch_size)),
        pictures_(std::move(items), preprocessing.orientation, budget_bytes(options), options.workers),
        generator_(options.seed),
        order_(pictures_.items().size()),
        position_(order_.size()),
        queue_(options.batch_size, options.workers) {
    TORCH_CHECK(!order_.empty(), "a training loader needs at least one item, got none");
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    begin_batches();
  }

  Batch next() {
    begin_batches();
    return queue_.take();
  }

  const image::Preprocessing& preprocessing() const { return preprocessing_; }
  const PictureStore& pictures() const { return pictures_; }

 private:
  void begin_batches() {
    while (queue_.wants_more()) begin_batch();
  }

  void begin_batch();
  void write_view(std::size_t item, std::uint64_t seed, std::uint8_t* pixels) const;

  image::Preprocessing preprocessing_;
  std::size_t batch_size_;
  PictureStore pictures_;
  std::mt19937_64 generator_;
  std::vector<std::size_t> order_;
  std::size_t position_;  // in order_, of the next batch to begin
  BatchQueue queue_;      // the last: its threads look at the other members
};

void TrainingLoader::Impl::begin_batch() {
  if (position_ == order_.size()) {
    shuffle(order_, generator_);
    position_ = 0;
  }
  const std::size_t count = std::min(order_.size() - position_, batch_size_);
  const auto first = order_.begin() + static_cast<std::ptrdiff_t>(position_);
  std::vector<std::size_t> items(first, first + static_cast<std::ptrdiff_t>(count));
  position_ += count;
  // A seed per picture, drawn here in order: the views do not depend on which thread makes which.
  std::vector<std::uint64_t> seeds(count);
  std::generate(seeds.begin(), seeds.end(), std::ref(generator_));
  std::vector<int> labels(count);
  std::ranges::transform(items, labels.begin(), [this](std::size_t i) { return pictures_.items()[i].label; });
  queue_.begin(labels, empty_pixels(count, preprocessing_.size_px),
               [this, items = std::move(items), seeds = std::move(seeds)](
                   std::size_t row, std::uint8_t* pixels) { write_view(items[row], seeds[row], pixels); });
}

void TrainingLoader::Impl::write_view(std::size_t item, std::uint64_t seed, std::uint8_t* pixels) const {
  pictures_.with_image(item, [&](const image::Image& image) {
    std::mt19937_64 generator(seed);
    const auto view = image::draw_training_view(image.height, image.width, generator);
    const image::Image seen = image::training_view(image, view, preprocessing_);
    std::memcpy(pixels, seen.rgb.data(), seen.rgb.size());
  });
}

TrainingLoader::TrainingLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                               const TrainingLoaderOptions& options)
    : impl_(std::make_unique<Impl>(std::move(items), preprocessing, options)) {}

TrainingLoader::~TrainingLoader() = default;

Batch TrainingLoader::next() { return impl_->next(); }

const image::Preprocessing& TrainingLoader::preprocessing() const { return impl_->preprocessing(); }

std::size_t TrainingLoader::images() const { return impl_->pictures().items().size(); }

std::size_t TrainingLoader::images_in_memory() const { return impl_->pictures().items_in_memory(); }

}  // namespace clip_lora::data
