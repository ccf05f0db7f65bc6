#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <vector>

#include "bench/program.hpp"

namespace clip_lora::bench {

inline constexpr std::int64_t kBatch = 32;
inline constexpr std::int64_t kPictures = 160;
inline constexpr std::int32_t kPictureWidth = 500;
inline constexpr std::int32_t kPictureHeight = 375;

/// A store of kPictures random pictures on the device, [n] uint8.
at::Tensor random_pictures(const Settings& settings);

/// Random pictures of the store, crops and flips for a batch: view requests' bytes on the host.
at::Tensor random_requests(std::mt19937_64& generator, std::int64_t batch = kBatch);

/// What TrainingStep::run takes, on the host.
struct TrainingBatch {
  at::Tensor images;
  at::Tensor labels;  ///< [B] int64
};

/// Batches of `batch` images as the training loop hands them over. On CUDA view requests of random_pictures,
/// in pinned memory; on the CPU pictures at the model's resolution, [B, R, R, 3] uint8, since there the
/// loader's threads crop them.
std::vector<TrainingBatch> random_batches(std::size_t count, std::int64_t batch, std::int64_t classes,
                                          std::int64_t size_px, const Settings& settings);

/// Texts of pairs: the prompt of each label's class in one of OpenAI's 80 templates, drawn at random.
/// rows: imagenet_prompts by template. On the host.
model::Prompts random_texts(const std::vector<std::vector<std::vector<std::int64_t>>>& rows,
                            const at::Tensor& labels, std::mt19937_64& generator);

}  // namespace clip_lora::bench
