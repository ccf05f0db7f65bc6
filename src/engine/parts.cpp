#include "parts.hpp"

namespace clip_lora::engine {

std::pair<std::int64_t, std::int64_t> parts_that_fit(const Activations& texts, const Activations& images,
                                                     std::int64_t budget) {
  std::int64_t text_parts = 1, image_parts = 1;
  while (texts.bytes / text_parts + images.bytes / image_parts > budget) {
    const bool split_texts = texts.bytes / text_parts > images.bytes / image_parts;
    if (split_texts ? text_parts >= texts.sequences : image_parts >= images.sequences) break;
    ++(split_texts ? text_parts : image_parts);
  }
  return {text_parts, image_parts};
}

}  // namespace clip_lora::engine
