#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "clip_lora/core/parallel.hpp"
#include "clip_lora/data/dataset.hpp"
#include "clip_lora/data/evaluation_views.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/image/preprocess.hpp"

namespace clip_lora::data {

/// What one iteration or one evaluation step looks at. CPU tensors.
struct Batch {
  at::Tensor pixels;                     ///< [B, R, R, 3] uint8; of a training batch this process's share
  at::Tensor labels;                     ///< [B] int64
  std::vector<std::int64_t> items = {};  ///< [B] indices into the list of items that the loader was given
  /// Of a training batch: how many images have been drawn before its first, since the beginning of training.
  std::int64_t first_sample = 0;
};

/// (pixels · rescale_factor − mean) / std of [B, R, R, 3], as [B, 3, R, R] of `dtype` on `device`, computed
/// in float32.
at::Tensor normalise(const at::Tensor& pixels, const image::Preprocessing& preprocessing, at::Device device,
                     at::ScalarType dtype);

/// How training images are kept and drawn.
struct TrainingLoaderOptions {
  int batch_size = 32;
  std::uint64_t seed = 1;  ///< of order, crops and flips
  image::Augmentation augmentation = {};
  int workers = hardware_workers();  ///< threads that decode and resize
  std::uint64_t image_memory_bytes =
      0;                             ///< of decoded images that may stay in memory; 0: half of what is free
  std::int64_t skipped_batches = 0;  ///< the first batches, which a resumed training has seen already
  int process = 0;                   ///< of `processes` that train together: of each batch it makes the
  int processes = 1;                 ///< pixels of share_of(batch, process, processes)
};

/// Endless shuffled epochs of augmented images: the last batch of an epoch may be smaller. One crop and one
/// flip are drawn per item and epoch. Decoded images, each once if several items name it, stay in memory up
/// to the budget; the others are decoded at each draw. The worker threads stay batches ahead of the caller.
/// The sequence depends on the seed alone, neither on the workers nor on the budget.
class TrainingLoader {
 public:
  /// Decodes the items that the budget allows and reads the headers of the others. At least one item;
  /// batch_size and workers ≥ 1. Throws DataError for an image that cannot be read.
  TrainingLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                 const TrainingLoaderOptions& options);
  ~TrainingLoader();
  TrainingLoader(const TrainingLoader&) = delete;
  TrainingLoader& operator=(const TrainingLoader&) = delete;

  /// Throws DataError for an image that cannot be decoded, naming it.
  Batch next();

  /// What made the batches' pixels, and how they are to be normalised.
  const image::Preprocessing& preprocessing() const;

  std::size_t images() const;            ///< in an epoch
  std::size_t images_in_memory() const;  ///< of them, decoded once and for all

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

struct EvaluationLoaderOptions {
  int batch_size = 256;
  int workers = hardware_workers();
  /// Folder where the decoded views are kept for later runs, as uint8, memory-mapped; empty: nowhere. A file
  /// there is known by a hash of the list of images and the preprocessing, each view in it by its image's
  /// size and time. What is damaged or out of date is decoded again and replaced, and any number of processes
  /// may make the same file. What cannot be written is warned of once.
  std::filesystem::path cache_folder = {};
  /// Whether another process, of any machine, that makes the same file at the moment is waited for, instead
  /// of decoding the images too.
  bool wait_for_cache = false;
  /// Views of the same items and preprocessing that this pass reads, and fills in where they are missing; not
  /// beside a cache_folder, which serves later passes too.
  std::shared_ptr<EvaluationViews> views = nullptr;
  /// Whether the batches lie in page-locked memory, out of which CUDA copies fast and without waiting.
  bool pinned = false;
};

/// One pass over `items` in order, at the evaluation view. The worker threads stay batches ahead of the
/// caller.
class EvaluationLoader {
 public:
  EvaluationLoader(std::vector<Item> items, const image::Preprocessing& preprocessing,
                   const EvaluationLoaderOptions& options);
  ~EvaluationLoader();
  EvaluationLoader(const EvaluationLoader&) = delete;
  EvaluationLoader& operator=(const EvaluationLoader&) = delete;

  /// The next batch, or nothing after the last. Throws DataError for an image that cannot be read.
  std::optional<Batch> next();

  const image::Preprocessing& preprocessing() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace clip_lora::data
