#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/ops/patches.hpp"

namespace clip_lora::engine {

/// The factor on cosine similarities in training and evaluation; the reference's, whatever the checkpoint's
/// is.
inline constexpr double kLogitScale = 100.0;

/// 100 · f·tᵀ of L2-normalised features. image_features: [B, E], text_features: [C, E]; returns [B, C]
/// float32.
at::Tensor classification_logits(const at::Tensor& image_features, const at::Tensor& text_features);

/// L2-normalised features of any number of prompts on any device, without gradients: [N, E] float32 on the
/// model's device. They are encoded in chunks, so that memory does not grow with their number.
at::Tensor prompt_features(const model::Clip& clip, const model::Prompts& prompts);

/// How a preprocessing's pixels are normalised.
ops::PixelNormalisation normalisation_of(const image::Preprocessing& preprocessing);

/// Encodes pictures by a model as it stands: an adapter has to be merged, attached updates are not looked at.
/// On CUDA batches of the size of the one before are the replay of a captured graph.
class ImageEncoder {
 public:
  /// The model's weights must stay as they are while the encoder lives.
  ImageEncoder(const model::Clip& clip, const image::Preprocessing& preprocessing);
  ~ImageEncoder();
  ImageEncoder(const ImageEncoder&) = delete;
  ImageEncoder& operator=(const ImageEncoder&) = delete;

  /// pixels: [B, R, R, 3] uint8 on any device. Returns their features [B, E] float32 on the model's device,
  /// not normalised; the next call may overwrite them.
  at::Tensor encode(const at::Tensor& pixels);

  at::Device device() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace clip_lora::engine
