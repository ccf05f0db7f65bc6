#pragma once

#include <cstdint>
#include <utility>

namespace clip_lora::engine {

/// What a tower keeps for the backward pass if all its sequences go through it at once.
struct Activations {
  std::int64_t bytes = 0;
  std::int64_t sequences = 1;
};

/// In how many parts the texts and the images have to go through their towers for the activations to take no
/// more than `budget` bytes, or one sequence at a time if even that is not little enough. The larger share is
/// split first.
std::pair<std::int64_t, std::int64_t> parts_that_fit(const Activations& texts, const Activations& images,
                                                     std::int64_t budget);

}  // namespace clip_lora::engine
