#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "element.hpp"

namespace clip_lora::ops {

/// Cross-entropy of B images and C classes of E features each, E a multiple of 8, addresses multiples of 16
/// bytes.
struct ClassificationProblem {
  const void* image_features = nullptr;  ///< [B, E]
  const void* text_features = nullptr;   ///< [C, E]
  const std::int64_t* labels = nullptr;  ///< [B]
  const float* class_weights = nullptr;  ///< [C], or null: all alike
  const float* loss_scale = nullptr;     ///< factor on the gradients, or null: 1
  float logit_scale = 1.0F;
  int images = 0;
  int classes = 0;
  int width = 0;
  Element element = Element::kFloat32;
};

/// What the kernels hand on, float32. f̂ and t̂ are the normalised features.
struct ClassificationScratch {
  float* products = nullptr;             ///< [B, C] f · t̂
  float* d_cosines = nullptr;            ///< [B, C] gradient in f̂ · t̂
  float* inverse_text_norms = nullptr;   ///< [C]
  float* inverse_image_norms = nullptr;  ///< [B]
  float* projections = nullptr;          ///< [B] f̂ · (gradient in f̂)
  float* losses = nullptr;               ///< [B] each image's part of the loss
};

struct ClassificationResults {
  float* loss = nullptr;             ///< [1]
  void* d_image_features = nullptr;  ///< [B, E], or null: not wanted
  void* d_text_features = nullptr;   ///< [C, E], or null
};

void launch_classification(const ClassificationProblem& problem, const ClassificationScratch& scratch,
                           const ClassificationResults& results, cudaStream_t stream);

}  // namespace clip_lora::ops
