#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/packing.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::ElementsAre;

template <typename T>
std::vector<T> values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous().flatten();
  return {flat.const_data_ptr<T>(), flat.const_data_ptr<T>() + flat.numel()};
}

TEST(Packing, ImagesLieEndToEndAndBeginWithTheRowThatStandsForThem) {
  const auto packing = ops::pack_images(3, 5, at::kCPU);
  EXPECT_THAT(values<std::int32_t>(packing.offsets), ElementsAre(0, 5, 10, 15));
  EXPECT_THAT(values<std::int64_t>(packing.ends), ElementsAre(0, 5, 10));
  EXPECT_EQ(packing.rows, 15);
  EXPECT_EQ(packing.longest, 5);
  EXPECT_FALSE(packing.causal);
  EXPECT_TRUE(packing.is_dense());
}

TEST(Packing, PromptsFollowTheirPrefixAndEndWithTheRowThatStandsForThem) {
  const auto packing = ops::pack_prompts({2, 1, 4}, 3, at::kCPU);
  EXPECT_THAT(values<std::int32_t>(packing.offsets), ElementsAre(3, 5, 6, 10));
  EXPECT_THAT(values<std::int64_t>(packing.ends), ElementsAre(4, 5, 9));
  EXPECT_EQ(packing.rows, 10);
  EXPECT_EQ(packing.longest, 4);
  EXPECT_TRUE(packing.causal);
  EXPECT_FALSE(packing.is_dense());
}

TEST(Packing, ShortPromptsShareTilesAndThePrefixHasItsOwn) {
  const auto packing = ops::pack_prompts({6, 6, 4, 1}, 3, at::kCPU);
  EXPECT_THAT(values<std::int32_t>(packing.tiles),
              ElementsAre(0, 3, 0, 3, 1,                       // prefix
                          3, 16, 3, 19, 1 | 1 << 6 | 1 << 12,  // three prompts
                          19, 1, 19, 20, 1));
}

TEST(Packing, LongPromptsAreCutIntoTiles) {
  const auto packing = ops::pack_prompts({2, 35, 3}, 0, at::kCPU);
  EXPECT_THAT(values<std::int32_t>(packing.tiles), ElementsAre(0, 2, 0, 2, 1,     //
                                                               2, 16, 2, 37, 1,   // the long one
                                                               18, 16, 2, 37, 0,  //
                                                               34, 3, 2, 37, 0,   //
                                                               37, 3, 37, 40, 1));
}

TEST(Packing, TilesCoverEveryRowOnce) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t i = 0; i < 200; ++i) lengths.push_back(1 + i * i % 23);
  const auto packing = ops::pack_prompts(lengths, 18, at::kCPU);
  const auto tiles = values<std::int32_t>(packing.tiles);
  std::int32_t next = 0;
  for (std::size_t i = 0; i < tiles.size(); i += 5) {
    EXPECT_EQ(tiles[i], next);
    EXPECT_GE(tiles[i + 1], 1);
    EXPECT_LE(tiles[i + 1], 16);
    next += tiles[i + 1];
  }
  EXPECT_EQ(next, packing.rows);
}

TEST(Packing, APromptNeedsARowOfItsOwn) { EXPECT_ANY_THROW(ops::pack_prompts({2, 0}, 3, at::kCPU)); }

}  // namespace
}  // namespace clip_lora::testing
