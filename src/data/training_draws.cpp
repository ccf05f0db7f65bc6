#include "clip_lora/data/training_draws.hpp"

#include <random>
#include <string>
#include <utility>

#include "clip_lora/core/log.hpp"
#include "clip_lora/core/memory.hpp"
#include "clip_lora/core/share.hpp"
#include "decoded_pictures.hpp"
#include "training_order.hpp"

namespace clip_lora::data {
namespace {

ops::ViewRequest make_request(const DecodedPictures::Picture& picture, const image::TrainingView& view) {
  return {.begin = picture.begin,
          .width = picture.size.width,
          .height = picture.size.height,
          .top = view.box.top,
          .left = view.box.left,
          .box_height = view.box.height,
          .box_width = view.box.width,
          .flip = view.flip ? 1 : 0};
}

}  // namespace

class TrainingDraws::Impl {
 public:
  Impl(std::vector<Item> items, DecodedPictures pictures, const image::Preprocessing& preprocessing,
       const TrainingDrawsOptions& options)
      : items_(std::move(items)),
        pictures_(std::move(pictures)),
        preprocessing_(preprocessing),
        augmentation_(options.augmentation),
        process_(options.process),
        processes_(options.processes),
        order_(items_.size(), options.batch_size, options.seed) {
    pictures_.decode(options.device, preprocessing.orientation, options.workers);
    order_.skip(options.skipped_batches);
  }

  DrawnBatch next() {
    DrawnBatch batch;
    batch.first_sample = order_.samples();
    const std::vector<TrainingDraw> draws = order_.next();
    for (const TrainingDraw& draw : draws) {
      batch.items.push_back(static_cast<std::int64_t>(draw.item));
      batch.labels.push_back(items_[draw.item].label);
    }
    const auto [first, count] = share_of(std::ssize(draws), process_, processes_);
    for (std::int64_t row = first; row < first + count; ++row) {
      const TrainingDraw& draw = draws[static_cast<std::size_t>(row)];
      const DecodedPictures::Picture& picture = pictures_.of_item(draw.item);
      std::mt19937_64 generator(draw.view_seed);
      const auto view =
          image::draw_training_view(picture.size.height, picture.size.width, generator, augmentation_);
      batch.requests.push_back(make_request(picture, view));
    }
    return batch;
  }

  const DecodedPictures& pictures() const { return pictures_; }
  const image::Preprocessing& preprocessing() const { return preprocessing_; }
  std::size_t images() const { return items_.size(); }

 private:
  std::vector<Item> items_;
  DecodedPictures pictures_;
  image::Preprocessing preprocessing_;
  image::Augmentation augmentation_;
  int process_;
  int processes_;
  TrainingOrder order_;
};

std::unique_ptr<TrainingDraws> TrainingDraws::make(std::vector<Item> items,
                                                   const image::Preprocessing& preprocessing,
                                                   const TrainingDrawsOptions& options) {
  if (!can_make_views(preprocessing)) {
    log_detail("training images are resized ahead: the filter " +
               image::to_string(preprocessing.interpolation) + " is made on the CPU only");
    return nullptr;
  }
  DecodedPictures pictures(items, options.workers);
  if (pictures.bytes() > options.store_bytes) {
    log_detail("training images are resized ahead: decoded, they take " + megabytes(pictures.bytes()) +
               ", and " + megabytes(options.store_bytes) + " are left for them on " + options.device.str());
    return nullptr;
  }
  log_detail(std::to_string(items.size()) + " training images take " + megabytes(pictures.bytes()) + " on " +
             options.device.str());
  return std::unique_ptr<TrainingDraws>(new TrainingDraws(
      std::make_unique<Impl>(std::move(items), std::move(pictures), preprocessing, options)));
}

bool TrainingDraws::can_make_views(const image::Preprocessing& preprocessing) {
  return preprocessing.interpolation == image::Interpolation::kBicubic;
}

TrainingDraws::TrainingDraws(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

TrainingDraws::~TrainingDraws() = default;

DrawnBatch TrainingDraws::next() { return impl_->next(); }

const at::Tensor& TrainingDraws::store() const { return impl_->pictures().store(); }

int TrainingDraws::largest_side() const { return impl_->pictures().largest_side(); }

const image::Preprocessing& TrainingDraws::preprocessing() const { return impl_->preprocessing(); }

std::size_t TrainingDraws::images() const { return impl_->images(); }

}  // namespace clip_lora::data
