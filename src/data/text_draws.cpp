#include "clip_lora/data/text_draws.hpp"

#include <c10/util/Exception.h>

namespace clip_lora::data {
namespace {

constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15;  // 2^64 divided by the golden ratio

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace

std::int64_t draw_text(std::uint64_t seed, std::int64_t sample, std::int64_t choices) {
  TORCH_CHECK(choices >= 1 && sample >= 0, "a text is drawn for sample ", sample, " out of ", choices);
  // Hashed: the generators of neighbouring seeds would otherwise be each other's, one number apart at worst.
  const std::uint64_t state = mix(seed + kGoldenGamma);
  const std::uint64_t bits = mix(state + (static_cast<std::uint64_t>(sample) + 1) * kGoldenGamma);
  const double unit = static_cast<double>(bits >> 11) * 0x1p-53;
  return static_cast<std::int64_t>(unit * static_cast<double>(choices));
}

}  // namespace clip_lora::data
