#pragma once

#include <cstdint>

namespace clip_lora::data {

/// Which of the `choices` ≥ 1 texts of an item is taken: 0 … choices − 1, uniform. A pure function, so that a
/// training that goes on from a checkpoint draws what it would have drawn. `sample` counts the images drawn
/// before, since the beginning of training (Batch::first_sample + row). Number `sample` of SplitMix64
/// (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014) from a state that is
/// hashed from the seed, its upper 53 bits scaled.
std::int64_t draw_text(std::uint64_t seed, std::int64_t sample, std::int64_t choices);

}  // namespace clip_lora::data
