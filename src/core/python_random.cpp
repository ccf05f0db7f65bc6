#include "clip_lora/core/python_random.hpp"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <numeric>
#include <unordered_set>
#include <utility>

namespace clip_lora {
namespace {

/// Up to how large a population CPython shuffles a list of all indices instead of remembering the chosen
/// ones: the size of a set of `count` entries (a table grows by fours and is at most a third full).
std::size_t pool_limit(std::size_t count) {
  std::size_t limit = 21;
  if (count > 5) {
    std::size_t table = 1;
    while (table < 3 * count) table *= 4;
    limit += table;
  }
  return limit;
}

}  // namespace

PythonRandom::PythonRandom(std::int64_t seed) {
  // Negation in unsigned arithmetic, for the smallest int64 has no positive counterpart.
  const auto magnitude =
      seed < 0 ? std::uint64_t{0} - static_cast<std::uint64_t>(seed) : static_cast<std::uint64_t>(seed);
  const std::array<std::uint32_t, 2> digits = {static_cast<std::uint32_t>(magnitude),
                                               static_cast<std::uint32_t>(magnitude >> 32)};
  const std::size_t used = digits[1] != 0 ? 2 : 1;
  init_by_array(std::span(digits).first(used));
}

// Initialisation, recurrence and tempering: Matsumoto & Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998),
// with the initialisation of 2002.

void PythonRandom::init(std::uint32_t seed) {
  state_[0] = seed;
  for (std::uint32_t i = 1; i < kStateSize; ++i) {
    state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  }
  index_ = kStateSize;
}

void PythonRandom::init_by_array(std::span<const std::uint32_t> key) {
  init(19650218U);
  std::size_t i = 1;
  std::size_t j = 0;
  const auto advance = [&] {
    if (++i == kStateSize) {
      state_[0] = state_[kStateSize - 1];
      i = 1;
    }
  };
  const auto mixed = [&](std::uint32_t factor) {
    return state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * factor);
  };
  for (std::size_t k = std::max<std::size_t>(kStateSize, key.size()); k > 0; --k) {
    state_[i] = mixed(1664525U) + key[j] + static_cast<std::uint32_t>(j);
    advance();
    j = (j + 1) % key.size();
  }
  for (std::size_t k = kStateSize - 1; k > 0; --k) {
    state_[i] = mixed(1566083941U) - static_cast<std::uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::refill() {
  constexpr std::size_t kShift = 397;
  for (std::size_t i = 0; i < kStateSize; ++i) {
    const std::uint32_t joined = (state_[i] & 0x80000000U) | (state_[(i + 1) % kStateSize] & 0x7fffffffU);
    state_[i] = state_[(i + kShift) % kStateSize] ^ (joined >> 1) ^ ((joined & 1U) != 0 ? 0x9908b0dfU : 0U);
  }
  index_ = 0;
}

std::uint32_t PythonRandom::next_u32() {
  if (index_ == kStateSize) refill();
  std::uint32_t y = state_[static_cast<std::size_t>(index_++)];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

std::uint64_t PythonRandom::getrandbits(int bits) {
  assert(bits >= 1 && bits <= 64);
  if (bits <= 32) return next_u32() >> (32 - bits);
  const std::uint64_t low = next_u32();
  const std::uint64_t high = next_u32() >> (64 - bits);
  return high << 32 | low;
}

double PythonRandom::random() {
  const std::uint32_t high = next_u32() >> 5;  // 27 bits
  const std::uint32_t low = next_u32() >> 6;   // 26 bits
  return (high * 0x1p26 + low) * 0x1p-53;
}

std::uint64_t PythonRandom::randbelow(std::uint64_t bound) {
  assert(bound >= 1);
  const int bits = static_cast<int>(std::bit_width(bound));
  std::uint64_t value = getrandbits(bits);
  while (value >= bound) value = getrandbits(bits);
  return value;
}

std::vector<std::size_t> PythonRandom::sample(std::size_t population, std::size_t count) {
  assert(count <= population);
  std::vector<std::size_t> result(count);
  if (population <= pool_limit(count)) {
    std::vector<std::size_t> pool(population);
    std::iota(pool.begin(), pool.end(), std::size_t{0});
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t chosen = randbelow(population - i);
      result[i] = pool[chosen];
      pool[chosen] = pool[population - i - 1];  // the last one not chosen yet fills the gap
    }
    return result;
  }
  std::unordered_set<std::size_t> selected;
  for (std::size_t& index : result) {
    do {
      index = randbelow(population);
    } while (!selected.insert(index).second);
  }
  return result;
}

std::vector<std::size_t> PythonRandom::shuffle(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (std::size_t left = count; left > 1; --left) std::swap(order[left - 1], order[randbelow(left)]);
  return order;
}

std::vector<std::size_t> PythonRandom::choices(std::size_t population, std::size_t count) {
  assert(population >= 1);
  std::vector<std::size_t> result(count);
  for (std::size_t& index : result) {
    index = static_cast<std::size_t>(std::floor(random() * static_cast<double>(population)));
  }
  return result;
}

}  // namespace clip_lora
