#pragma once

#include <cstdint>

namespace clip_lora {

/// Elements first … first + count − 1 of a sequence.
struct Share {
  std::int64_t first = 0;
  std::int64_t count = 0;
};

/// What part `part` of `parts` has of `total` elements: the parts lie one behind the other, and the largest
/// has at most one element more than the smallest.
constexpr Share share_of(std::int64_t total, std::int64_t part, std::int64_t parts) {
  const std::int64_t first = total * part / parts;
  return {first, total * (part + 1) / parts - first};
}

/// The largest share: ⌈total / parts⌉.
constexpr std::int64_t largest_share(std::int64_t total, std::int64_t parts) {
  return (total + parts - 1) / parts;
}

}  // namespace clip_lora
