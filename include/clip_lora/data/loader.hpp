#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <future>
#include <optional>
#include <random>
#include <vector>

#include "clip_lora/data/dataset.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/image/preprocess.hpp"

namespace clip_lora::data {

/// What one iteration or one evaluation step looks at. CPU tensors.
struct Batch {
  at::Tensor pixels;  ///< [B, R, R, 3] uint8
  at::Tensor labels;  ///< [B] int64
};

/// (pixels · rescale_factor − mean) / std of [B, R, R, 3], as [B, 3, R, R] of `dtype` on `device`, computed
/// in float32.
at::Tensor normalise(const at::Tensor& pixels, const image::Preprocessing& preprocessing, at::Device device,
                     at::ScalarType dtype);

/// Decodes every item once, in order, on all cores. Throws DataError.
std::vector<image::Image> decode_all(const std::vector<Item>& items);

/// Endless shuffled epochs of augmented few-shot images: the last batch of an epoch may be smaller. One crop
/// and one flip are drawn per image and epoch. The next batch is prepared while the caller works on this one.
/// The sequence depends on `seed` alone.
class TrainingLoader {
 public:
  /// Decodes `items`. batch_size ≥ 1.
  TrainingLoader(std::vector<Item> items, const image::Preprocessing& preprocessing, int batch_size,
                 std::uint64_t seed);
  ~TrainingLoader();
  TrainingLoader(const TrainingLoader&) = delete;
  TrainingLoader& operator=(const TrainingLoader&) = delete;

  Batch next();

  /// What made the batches' pixels, and how they are to be normalised.
  const image::Preprocessing& preprocessing() const { return preprocessing_; }

 private:
  Batch prepare(const std::vector<std::size_t>& indices, const std::vector<std::uint64_t>& view_seeds) const;
  void start_next();

  std::vector<Item> items_;
  std::vector<image::Image> images_;
  image::Preprocessing preprocessing_;
  int batch_size_;
  std::mt19937_64 generator_;
  std::vector<std::size_t> order_;
  std::size_t position_ = 0;
  std::future<Batch> next_;
};

/// One pass over `items` in order, at the evaluation view. The next batch is decoded while the caller works
/// on this one.
class EvaluationLoader {
 public:
  EvaluationLoader(std::vector<Item> items, const image::Preprocessing& preprocessing, int batch_size);
  ~EvaluationLoader();
  EvaluationLoader(const EvaluationLoader&) = delete;
  EvaluationLoader& operator=(const EvaluationLoader&) = delete;

  /// The next batch, or nothing after the last. Throws DataError for an image that cannot be read.
  std::optional<Batch> next();

  const image::Preprocessing& preprocessing() const { return preprocessing_; }

 private:
  void start_next();

  std::vector<Item> items_;
  image::Preprocessing preprocessing_;
  int batch_size_;
  std::size_t position_ = 0;
  std::future<Batch> next_;
};

}  // namespace clip_lora::data
