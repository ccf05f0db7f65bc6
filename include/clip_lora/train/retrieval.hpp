#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "clip_lora/data/loader.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::train {

/// How many percent of the queries find what they look for among the first 1, 5 and 10.
struct Recall {
  double at_1 = 0.0;
  double at_5 = 0.0;
  double at_10 = 0.0;
};

/// Retrieval of captions by images and of images by captions.
struct RetrievalMetrics {
  Recall image_to_text;  ///< an image has found the first of its captions
  Recall text_to_image;
  std::int64_t images = 0;
  std::int64_t texts = 0;
};

/// How many similarities compute_recall holds at a time: with what they are compared by, some 100 MB.
inline constexpr std::int64_t kSimilaritiesAtOnce = 8'000'000;

/// Recall in the order of a stable descending sort: of equal similarities the lower index comes first.
/// image_features: [N, E], text_features: [M, E], normalised float32 on one device; image_of_text: [M] int64
/// on any device, the image of each caption, 0 … N − 1, at least one caption for each image. Nothing is
/// sorted: what is ahead of an image's best caption, and of a caption's image, is counted in blocks. Throws
/// Error, with their number, if some images' or captions' features are not finite.
RetrievalMetrics compute_recall(const at::Tensor& image_features, const at::Tensor& text_features,
                                const at::Tensor& image_of_text,
                                std::int64_t similarities_at_once = kSimilaritiesAtOnce);

/// Normalised features of everything that `loader` yields, in its order: [N, E] float32 on the model's
/// device. `on_progress` gets the number of images done after each batch. Throws Interrupted between two
/// batches once a signal is pending. compute_recall checks that they are finite.
at::Tensor image_features(const model::Clip& clip, data::EvaluationLoader& loader,
                          const std::function<void(std::int64_t)>& on_progress);

/// Normalised features of captions as they stand, in their order: [M, E] float32 on the model's device. One
/// that is longer than the model's context is cut, its last token then being <|endoftext|>; equal captions
/// have equal features to the bit. `on_progress` gets the number of different captions done. Throws
/// Interrupted as image_features, and DataError for a caption that is not valid UTF-8.
at::Tensor caption_features(const model::Clip& clip, const text::Tokenizer& tokenizer,
                            const std::vector<std::string>& captions,
                            const std::function<void(std::int64_t)>& on_progress);

}  // namespace clip_lora::train
