#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/model/clip.hpp"

namespace clip_lora::train {

/// Calls `use` with every batch of `loader` and its normalised image features, [B, E] float32 on the model's
/// device, and `on_progress` with the number of images done after each. Throws Interrupted between two
/// batches once a signal is pending. Returns the number of images.
std::int64_t encode_images(const model::Clip& clip, data::EvaluationLoader& loader,
                           const std::function<void(std::int64_t)>& on_progress,
                           const std::function<void(const data::Batch&, const at::Tensor&)>& use);

/// Throws Interrupted if a signal is pending: "interrupted after 256 images of the evaluation".
void stop_if_interrupted(std::int64_t done, const std::string& what);

/// Rows of [B, C] that have an entry which is not finite. [] int64, on their device.
at::Tensor rows_not_finite(const at::Tensor& rows);

/// Throws Error if `count` ([] int64) is not 0: "the class probabilities of 3 of 11 images are not finite".
void require_finite(const at::Tensor& count, std::int64_t rows, const std::string& quantity,
                    const std::string& of_what);

}  // namespace clip_lora::train
