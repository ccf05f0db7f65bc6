#include <cstring>
#include <random>
#include <utility>

#include "batch_queue.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/core/share.hpp"
#include "clip_lora/data/loader.hpp"
#include "picture_store.hpp"
#include "training_order.hpp"

namespace clip_lora::data {
namespace {

std::uint64_t budget_bytes(const TrainingLoaderOptions& options) {
  return options.image_memory_bytes != 0 ? options.image_memory_bytes : available_memory_bytes() / 2;
}

}  // namespace

class TrainingLoader::Impl {
 public:
  Impl(std::vector<Item> items, const image::Preprocessing& preprocessing,
       const TrainingLoaderOptions& options)
      : preprocessing_(preprocessing),
        augmentation_(options.augmentation),
        pictures_(std::move(items), preprocessing.orientation, budget_bytes(options), options.workers),
        process_(options.process),
        processes_(options.processes),
        order_(pictures_.items().size(), options.batch_size, options.seed),
        queue_(static_cast<int>(largest_share(options.batch_size, options.processes)), options.workers) {
    order_.skip(options.skipped_batches);
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
  void write_view(const TrainingDraw& draw, std::uint8_t* pixels) const;

  image::Preprocessing preprocessing_;
  image::Augmentation augmentation_;
  PictureStore pictures_;
  int process_;
  int processes_;
  TrainingOrder order_;
  BatchQueue queue_;  // the last: its threads look at the other members
};

void TrainingLoader::Impl::begin_batch() {
  const std::int64_t first_sample = order_.samples();
  std::vector<TrainingDraw> draws = order_.next();
  std::vector<int> labels;
  std::vector<std::int64_t> items;
  for (const TrainingDraw& draw : draws) {
    labels.push_back(pictures_.items()[draw.item].label);
    items.push_back(static_cast<std::int64_t>(draw.item));
  }
  const Share own = share_of(std::ssize(draws), process_, processes_);
  Batch batch = {empty_pixels(static_cast<std::size_t>(own.count), preprocessing_.size_px),
                 label_tensor(labels), std::move(items), first_sample};
  const auto first = static_cast<std::size_t>(own.first);
  queue_.begin(std::move(batch), [this, first, draws = std::move(draws)](std::size_t row, std::uint8_t* out) {
    write_view(draws[first + row], out);
  });
}

void TrainingLoader::Impl::write_view(const TrainingDraw& draw, std::uint8_t* pixels) const {
  pictures_.with_image(draw.item, [&](const image::Image& image) {
    std::mt19937_64 generator(draw.view_seed);
    const auto view = image::draw_training_view(image.height, image.width, generator, augmentation_);
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
