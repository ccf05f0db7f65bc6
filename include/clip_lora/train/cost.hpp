#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "clip_lora/model/architecture.hpp"

namespace clip_lora::train {

/// What a run computes, for an estimate of its time.
struct Workload {
  std::int64_t iterations = 0;
  std::int64_t batch_size = 0;
  std::int64_t prompts = 0;      ///< encoded in each iteration
  std::int64_t test_images = 0;  ///< seen twice: by the untouched and by the adapted model
};

/// Floating-point operations of a run, roughly: the blocks' products alone, backward as dear as forward since
/// the weights get no gradients, 16 tokens per prompt.
double estimated_operations(const model::ClipArchitecture& architecture, const Workload& workload);

/// Floating-point operations per second of large matrix products of `type` on `device`, measured in a
/// fraction of a second.
double measure_operations_per_second(at::Device device, at::ScalarType type);

}  // namespace clip_lora::train
