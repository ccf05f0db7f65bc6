#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace clip_lora {

/// CPython's `random.Random` (Mersenne Twister MT19937), number for number.
/// Source: CPython 3.11 Modules/_randommodule.c (seeding, getrandbits, random) and Lib/random.py (sample,
/// shuffle, choices).
class PythonRandom {
 public:
  /// `random.seed(seed)` of an integer: init_by_array over the 32-bit digits of |seed|, least significant
  /// first.
  explicit PythonRandom(std::int64_t seed);

  /// 32 fresh bits.
  std::uint32_t next_u32();
  /// `getrandbits(bits)`, bits 1 … 64.
  std::uint64_t getrandbits(int bits);
  /// `random()`: 53 bits in [0, 1).
  double random();
  /// `_randbelow(bound)`: rejection by getrandbits; bound ≥ 1.
  std::uint64_t randbelow(std::uint64_t bound);
  /// `sample(range(population), count)`: indices without replacement, by CPython's two branches (pool and
  /// set). count ≤ population.
  std::vector<std::size_t> sample(std::size_t population, std::size_t count);
  /// `shuffle(list(range(count)))`: the order that CPython's in-place shuffle gives.
  std::vector<std::size_t> shuffle(std::size_t count);
  /// `choices(range(population), k=count)`: indices with replacement, floor(random() · population).
  /// population ≥ 1.
  std::vector<std::size_t> choices(std::size_t population, std::size_t count);

 private:
  void init(std::uint32_t seed);
  void init_by_array(std::span<const std::uint32_t> key);
  void refill();

  static constexpr int kStateSize = 624;
  std::array<std::uint32_t, kStateSize> state_{};
  int index_ = kStateSize;
};

}  // namespace clip_lora
