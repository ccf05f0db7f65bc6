#pragma once

namespace clip_lora::image {

/// From now on resizing uses AVX2 where the processor has it, or does without. For tests of what other processors
/// run; not meant to change while pictures are resized.
void allow_avx2(bool allowed);

}  // namespace clip_lora::image
