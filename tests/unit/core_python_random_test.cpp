#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "clip_lora/core/python_random.hpp"

// The expected numbers are what CPython 3.11's random.Random(seed) returns.
namespace clip_lora {
namespace {

using ::testing::ElementsAre;

std::array<std::uint32_t, 3> first_words(std::int64_t seed) {
  PythonRandom random(seed);
  return {random.next_u32(), random.next_u32(), random.next_u32()};
}

TEST(PythonRandom, SeedsAsCPythonDoes) {
  EXPECT_THAT(first_words(0), ElementsAre(3626764237U, 1654615998U, 3255389356U));
  EXPECT_THAT(first_words(1), ElementsAre(577090037U, 2444712010U, 3639700191U));
  EXPECT_THAT(first_words(42), ElementsAre(2746317213U, 478163327U, 107420369U));
}

TEST(PythonRandom, TakesTheAbsoluteValueOfANegativeSeed) { EXPECT_EQ(first_words(-1), first_words(1)); }

TEST(PythonRandom, SeedsBeyond32BitsWithTwoDigits) {
  EXPECT_THAT(first_words(std::int64_t{1} << 32), ElementsAre(485306839U, 1508871100U, 1794561286U));
  EXPECT_THAT(first_words(-(std::int64_t{1} << 40)), ElementsAre(445128065U, 1517081360U, 2880015531U));
  EXPECT_THAT(first_words(std::numeric_limits<std::int64_t>::max()),
              ElementsAre(1359979423U, 2819855560U, 2711238091U));
  EXPECT_THAT(first_words(std::numeric_limits<std::int64_t>::min()),
              ElementsAre(2377109768U, 1691753470U, 4039908392U));
}

TEST(PythonRandom, StaysEqualWhenTheStateIsRefilled) {
  PythonRandom random(9);
  std::vector<std::uint32_t> words;
  for (int i = 0; i < 2000; ++i) words.push_back(random.next_u32());
  EXPECT_EQ(words[623], 1672538544U);
  EXPECT_EQ(words[624], 3815807495U);
  EXPECT_EQ(words[1999], 1592179525U);
}

TEST(PythonRandom, DrawsTheSameFloats) {
  PythonRandom random(1);
  EXPECT_EQ(random.random(), 0.13436424411240122);
  EXPECT_EQ(random.random(), 0.8474337369372327);
  EXPECT_EQ(random.random(), 0.763774618976614);
}

TEST(PythonRandom, DrawsTheSameBitsOfEveryCount) {
  PythonRandom random(1);
  std::vector<std::uint64_t> drawn;
  for (const int bits : {1, 5, 31, 32, 33, 48, 64}) drawn.push_back(random.getrandbits(bits));
  EXPECT_THAT(drawn, ElementsAre(0U, 18U, 1819850095U, 3445702192U, 3280387012U, 33188307809340U,
                                 14037279428536751483U));
}

TEST(PythonRandom, RejectsAsRandbelowDoesWithinAndBeyond32Bits) {
  PythonRandom random(7);
  const std::vector<std::uint64_t> bounds = {1,          2,         3, 1000, 1ULL << 32, (1ULL << 32) + 1,
                                             3ULL << 40, 1ULL << 63};
  std::vector<std::uint64_t> drawn;
  for (const std::uint64_t bound : bounds) drawn.push_back(random.randbelow(bound));
  EXPECT_THAT(drawn,
              ElementsAre(0U, 0U, 1U, 666U, 207388624U, 404285457U, 255906125917U, 691672907343361484U));
}

TEST(PythonRandom, SamplesOnBothSidesOfThePoolLimit) {  // 21 for up to 5 of them, 21 + 64 for 6
  PythonRandom random(3);
  EXPECT_THAT(random.sample(21, 5), ElementsAre(7, 18, 17, 4, 11));
  EXPECT_THAT(random.sample(22, 5), ElementsAre(19, 15, 20, 18, 2));
  EXPECT_THAT(random.sample(85, 6), ElementsAre(77, 1, 60, 33, 70, 29));
  EXPECT_THAT(random.sample(86, 6), ElementsAre(24, 60, 69, 70, 50, 81));
  EXPECT_THAT(random.sample(16, 16), ElementsAre(4, 3, 10, 2, 8, 6, 0, 1, 12, 13, 15, 9, 7, 5, 11, 14));
  EXPECT_THAT(random.sample(1, 1), ElementsAre(0));
  EXPECT_THAT(random.sample(1000, 3), ElementsAre(731, 807, 943));
}

TEST(PythonRandom, ChoosesWithReplacement) {
  PythonRandom random(5);
  EXPECT_THAT(random.choices(3, 16), ElementsAre(1, 2, 2, 2, 2, 2, 0, 1, 2, 1, 2, 0, 1, 0, 1, 1));
  EXPECT_THAT(random.choices(1, 2), ElementsAre(0, 0));
  EXPECT_THAT(random.sample(40, 4), ElementsAre(17, 11, 24, 10));
}

TEST(PythonRandom, ShufflesInTheSameOrder) {
  PythonRandom random(3);
  EXPECT_THAT(random.shuffle(0), ElementsAre());
  EXPECT_THAT(random.shuffle(1), ElementsAre(0));
  EXPECT_THAT(random.shuffle(2), ElementsAre(1, 0));
  EXPECT_THAT(random.shuffle(10), ElementsAre(1, 5, 6, 0, 3, 4, 7, 2, 8, 9));
  EXPECT_THAT(random.shuffle(17), ElementsAre(6, 0, 2, 4, 1, 5, 12, 10, 9, 14, 7, 11, 13, 3, 16, 8, 15));
  EXPECT_EQ(random.next_u32(), 3728226180U);
}

}  // namespace
}  // namespace clip_lora
