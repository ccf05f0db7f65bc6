#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/ops/view_request.hpp"

namespace clip_lora::data {

struct TrainingDrawsOptions {
  int batch_size = 32;
  std::uint64_t seed = 1;  ///< of order, crops and flips
  image::Augmentation augmentation = {};
  int workers = hardware_workers();  ///< threads that decode
  at::Device device = at::kCPU;      ///< where the decoded images stay
  std::uint64_t store_bytes = 0;     ///< that they may take there
  std::int64_t skipped_batches = 0;  ///< the first batches, which a resumed training has seen already
  int process = 0;                   ///< as TrainingLoaderOptions::process: its share of the requests
  int processes = 1;
};

/// What one iteration looks at, before the views are cut out. B of each.
struct DrawnBatch {
  std::vector<std::int64_t> labels;
  std::vector<ops::ViewRequest> requests;  ///< of views of TrainingDraws::store(): this process's share
  std::vector<std::int64_t> items;         ///< as Batch::items
  std::int64_t first_sample = 0;           ///< as Batch::first_sample
};

/// TrainingLoader's batches without their pixels: the training images lie decoded on a device, where
/// ops::resized_views makes the views. For the same items, preprocessing and options they are, bit for bit,
/// TrainingLoader's.
class TrainingDraws {
 public:
  /// Decodes all items. Nothing, and log_detail says why, if they would take more than options.store_bytes,
  /// or if can_make_views() is false: then TrainingLoader has the batches. Throws DataError for an image that
  /// cannot be read, Interrupted once a signal is pending.
  static std::unique_ptr<TrainingDraws> make(std::vector<Item> items,
                                             const image::Preprocessing& preprocessing,
                                             const TrainingDrawsOptions& options);

  /// Whether ops::resized_views has the preprocessing's filter.
  static bool can_make_views(const image::Preprocessing& preprocessing);

  ~TrainingDraws();
  TrainingDraws(const TrainingDraws&) = delete;
  TrainingDraws& operator=(const TrainingDraws&) = delete;

  /// The next batch. Cheap enough for the thread that launches the iterations.
  DrawnBatch next();

  const at::Tensor& store() const;  ///< [n] uint8 on options.device
  int largest_side() const;         ///< of the images, for ops::resized_views
  const image::Preprocessing& preprocessing() const;
  std::size_t images() const;  ///< in an epoch

 private:
  class Impl;
  explicit TrainingDraws(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace clip_lora::data
