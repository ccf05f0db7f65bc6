#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "batch_queue.hpp"
#include "clip_lora/data/loader.hpp"
#include "evaluation_cache.hpp"

namespace clip_lora::data {

class EvaluationLoader::Impl {
 public:
  Impl(std::vector<Item> items, const image::Preprocessing& preprocessing,
       const EvaluationLoaderOptions& options)
      : items_(std::move(items)),
        preprocessing_(preprocessing),
        batch_size_(static_cast<std::size_t>(options.batch_size)),
        pinned_(options.pinned),
        views_(options.views),
        queue_(options.batch_size, options.workers) {
    TORCH_CHECK(!views_ || (views_->count() == items_.size() && options.cache_folder.empty()),
                "an evaluation of ", items_.size(), " images was given a cache folder or kept views of ",
                views_ ? views_->count() : 0);
    if (!options.cache_folder.empty() && !items_.empty()) {
      cache_ = std::make_unique<EvaluationCache>(options.cache_folder, items_, preprocessing_,
                                                 options.wait_for_cache);
    }
    begin_batches();
  }

  std::optional<Batch> next() {
    begin_batches();
    if (queue_.empty()) return std::nullopt;
    Batch batch = queue_.take();
    if (cache_ && queue_.empty()) cache_->finish();
    return batch;
  }

  const image::Preprocessing& preprocessing() const { return preprocessing_; }

 private:
  std::size_t view_bytes() const {
    return static_cast<std::size_t>(preprocessing_.size_px) *
           static_cast<std::size_t>(preprocessing_.size_px) * 3;
  }
  void begin_batches();
  at::Tensor pixels_for(std::size_t first, std::size_t count) const;
  void write_view(std::size_t item, std::uint8_t* pixels) const;
  void decode(std::size_t item, std::uint8_t* pixels) const;

  std::vector<Item> items_;
  image::Preprocessing preprocessing_;
  std::size_t batch_size_;
  std::size_t position_ = 0;  // in items_, of the next batch to begin
  bool pinned_;
  std::unique_ptr<EvaluationCache> cache_;
  std::shared_ptr<EvaluationViews> views_;
  BatchQueue queue_;  // the last: its threads look at the other members
};

void EvaluationLoader::Impl::begin_batches() {
  while (position_ < items_.size() && queue_.wants_more()) {
    const std::size_t first = position_;
    position_ += std::min(items_.size() - first, batch_size_);
    std::vector<int> labels;
    std::vector<std::int64_t> items;
    for (std::size_t i = first; i < position_; ++i) {
      labels.push_back(items_[i].label);
      items.push_back(static_cast<std::int64_t>(i));
    }
    queue_.begin({pixels_for(first, labels.size()), label_tensor(labels), std::move(items)},
                 [this, first](std::size_t row, std::uint8_t* pixels) { write_view(first + row, pixels); });
  }
}

/// Memory for a batch; the cache's own where it has a file and may be used, so that nothing need be copied.
at::Tensor EvaluationLoader::Impl::pixels_for(std::size_t first, std::size_t count) const {
  const std::shared_ptr<std::uint8_t> kept = cache_ && !pinned_ ? cache_->kept_views(first) : nullptr;
  if (!kept) return empty_pixels(count, preprocessing_.size_px, pinned_);
  const std::int64_t size_px = preprocessing_.size_px;
  return at::from_blob(
      kept.get(), {static_cast<std::int64_t>(count), size_px, size_px, 3}, [kept](void*) {}, at::kByte);
}

void EvaluationLoader::Impl::decode(std::size_t item, std::uint8_t* pixels) const {
  const image::Image view = image::load_evaluation_view(items_[item].image, preprocessing_);
  std::memcpy(pixels, view.rgb.data(), view.rgb.size());
}

void EvaluationLoader::Impl::write_view(std::size_t item, std::uint8_t* pixels) const {
  if (cache_) {
    const std::shared_ptr<std::uint8_t> kept = cache_->kept_views(item);
    std::uint8_t* const view = kept ? kept.get() : pixels;
    cache_->fill(item, view, [&] { decode(item, view); });
    if (view != pixels) std::memcpy(pixels, view, view_bytes());
  } else if (!views_ || !views_->read(item, pixels)) {
    decode(item, pixels);
    if (views_) views_->keep(item, pixels);
  }
}

EvaluationLoader::EvaluationLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                                   const EvaluationLoaderOptions& options)
    : impl_(std::make_unique<Impl>(std::move(items), preprocessing, options)) {}

EvaluationLoader::~EvaluationLoader() = default;

std::optional<Batch> EvaluationLoader::next() { return impl_->next(); }

const image::Preprocessing& EvaluationLoader::preprocessing() const { return impl_->preprocessing(); }

}  // namespace clip_lora::data
