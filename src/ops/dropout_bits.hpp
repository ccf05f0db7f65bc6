#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define CLIP_LORA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define CLIP_LORA_HOST_DEVICE inline
#endif

namespace clip_lora::ops {

/// The bits of keep masks, drawn alike by both back-ends.
///
/// One word holds the bits of 32 columns of a row. Columns form vectors of eight neighbours, and vector v
/// lies in word v % 32 + 32 (v / 128), byte (v / 32) % 4: the lane of a warp that owns vectors lane, lane +
/// 32, lane + 64, … finds the bits of four of them in one word of its own.
CLIP_LORA_HOST_DEVICE int words_of_width(int width) { return 32 * ((width + 1023) / 1024); }
CLIP_LORA_HOST_DEVICE int word_of_vector(int vector) { return vector % 32 + 32 * (vector / 128); }
CLIP_LORA_HOST_DEVICE int shift_of_vector(int vector) { return 8 * (vector / 32 % 4); }

struct FourWords {
  std::uint32_t x, y, z, w;
};

/// The block function of Philox4x32-10: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3".
CLIP_LORA_HOST_DEVICE FourWords philox(FourWords counter, std::uint32_t key_0, std::uint32_t key_1) {
#ifdef __CUDA_ARCH__
  asm volatile(""
               : "+r"(key_0), "+r"(key_1));  // or a loop's ten keys would occupy twenty registers throughout
#endif
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product_0 = std::uint64_t{0xD2511F53u} * counter.x;
    const std::uint64_t product_1 = std::uint64_t{0xCD9E8D57u} * counter.z;
    counter = {static_cast<std::uint32_t>(product_1 >> 32) ^ counter.y ^ key_0,
               static_cast<std::uint32_t>(product_1),
               static_cast<std::uint32_t>(product_0 >> 32) ^ counter.w ^ key_1,
               static_cast<std::uint32_t>(product_0)};
    key_0 += 0x9E3779B9u;
    key_1 += 0xBB67AE85u;
  }
  return counter;
}

/// What a kernel needs to know of a Dropout.
struct DropoutDraw {
  const std::int64_t* state = nullptr;  ///< seed, iteration; not read if planes is 0
  std::uint32_t stream = 0;
  std::uint32_t keep = 65536;  ///< the probability of keeping an entry, of 65,536
  int planes = 0;              ///< binary digits of that probability behind the point; 0: everything is kept
  std::int64_t prefix = 0;
  std::int64_t skip = 0;
};

struct DropoutKey {
  std::uint32_t seed_low = 0, seed_high = 0, iteration = 0;
};

CLIP_LORA_HOST_DEVICE DropoutKey read_key(const DropoutDraw& draw) {
  if (draw.planes == 0) return {};
  const auto seed = static_cast<std::uint64_t>(draw.state[0]);
  return {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
          static_cast<std::uint32_t>(draw.state[1])};
}

CLIP_LORA_HOST_DEVICE std::uint32_t row_number(const DropoutDraw& draw, std::int64_t row) {
  return static_cast<std::uint32_t>(row < draw.prefix ? row : row + draw.skip);
}

/// `bits[m]`: the given word of mask m's row, for m < masks. 32 bits that are each 1 with probability
/// 0.b₁b₂…bₙ are made of n random words, from the last digit to the first: AND with a word halves the
/// probability, OR halves it and adds a half, as a digit 0 or 1 in front does. Digit i (from the last) of
/// mask m takes word n m + i of the row's.
template <int kPlanes>  // n, or 0 for any draw.planes
CLIP_LORA_HOST_DEVICE void draw_words(const DropoutDraw& draw, const DropoutKey& key, std::uint32_t row,
                                      int word, int masks, std::uint32_t (&bits)[3]) {
  const int planes = kPlanes > 0 ? kPlanes : draw.planes;
  const std::uint32_t digits = draw.keep >> (16 - planes);
  FourWords random = {};
  int plane = 0;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
  for (int mask = 0; mask < 3; ++mask) {
    if (mask >= masks) break;
    std::uint32_t kept = 0;
#ifdef __CUDA_ARCH__
#pragma unroll(kPlanes > 0 ? kPlanes : 1)
#endif
    for (int digit = 0; digit < planes; ++digit, ++plane) {
      if (plane % 4 == 0) {
        const auto call = static_cast<std::uint32_t>(plane / 4);
        random = philox({row, static_cast<std::uint32_t>(word) | call << 16, draw.stream, key.iteration},
                        key.seed_low, key.seed_high);
      }
      const std::uint32_t next = random.x;
      random = {random.y, random.z, random.w, 0};
      kept = (digits >> digit & 1) != 0 ? kept | next : kept & next;
    }
    bits[mask] = kept;
  }
}

/// The same for any probability, with code of its own for 1/4 and 3/4.
CLIP_LORA_HOST_DEVICE void draw_words(const DropoutDraw& draw, const DropoutKey& key, std::uint32_t row,
                                      int word, int masks, std::uint32_t (&bits)[3]) {
  if (draw.planes == 2) return draw_words<2>(draw, key, row, word, masks, bits);
  if (draw.planes > 0) return draw_words<0>(draw, key, row, word, masks, bits);
  for (std::uint32_t& kept : bits) kept = ~std::uint32_t{0};
}

}  // namespace clip_lora::ops
