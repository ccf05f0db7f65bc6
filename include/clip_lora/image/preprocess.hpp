#pragma once

#include <array>
#include <random>

#include "clip_lora/image/image.hpp"

namespace clip_lora::image {

/// CLIP's normalisation, per channel: (value / 255 − mean) / standard deviation.
inline constexpr std::array<float, 3> kMean = {0.48145466F, 0.4578275F, 0.40821073F};
inline constexpr std::array<float, 3> kStandardDeviation = {0.26862954F, 0.26130258F, 0.27577711F};

/// The evaluation view: shorter side to `size_px`, long side int(size_px · long / short), then the central
/// [size_px, size_px]. Equal to torchvision's Resize(size_px, BICUBIC) and CenterCrop(size_px) on a Pillow image.
Image evaluation_view(const Image& image, int size_px);

/// One random view of a training image.
struct TrainingView {
  Box box;
  bool flip = false;
};

/// Draws torchvision's RandomResizedCrop(scale (0.08, 1), ratio (3/4, 4/3)) rectangle, ten tries and then the central
/// fallback, and a flip of probability 0.5, for an image of [height, width].
TrainingView draw_training_view(int height, int width, std::mt19937_64& generator);

/// Crops `view.box`, resizes it to [size_px, size_px], then flips it if asked to.
Image training_view(const Image& image, const TrainingView& view, int size_px);

}  // namespace clip_lora::image
