// Texts in places that stay: the same features as those packed anew, whatever was there before.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "engine/batch_texts.hpp"
#include "support/close.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using engine::BatchTexts;
using engine::TextRoom;

constexpr std::int64_t kContext = 77;

model::Prompts prompts_of(const std::vector<std::int64_t>& ends) {
  return model::make_prompts(random_prompt_rows(tiny_architecture(), ends));
}

/// By the tower as it stands, of texts packed one behind the other.
at::Tensor packed_features(const model::Clip& clip, const model::Prompts& prompts) {
  return engine::text_tower(clip).features(
      engine::pack(clip, prompts, /*share_prefix=*/false, /*rows_per_chunk=*/1 << 20));
}

at::Tensor features_in_place(const model::Clip& clip, const BatchTexts& texts) {
  return texts.without_fillers(engine::text_tower(clip).features({texts.embedded()}));
}

TEST(TextRoom, RoundsRowsUpAndLeavesEachFillerOne) {
  const TextRoom room = TextRoom::of(prompts_of({4, 11, 2, 6}), kContext);  // 27 rows
  EXPECT_EQ(room.texts, 4);
  EXPECT_EQ(room.rows, 64);
  EXPECT_EQ(room.longest, 16);
  EXPECT_GE(room.fillers, 1);
  EXPECT_EQ(TextRoom::of(prompts_of({3, 9, 8, 1}), kContext), room);
  EXPECT_NE(TextRoom::of(prompts_of({3, 9, 8}), kContext), room) << "of another number of texts";
}

TEST(TextRoom, GrowsWhereTheFillersWouldHaveNoRows) {
  const std::int64_t fillers = TextRoom::of(prompts_of({4}), kContext).fillers;
  // Texts of 8 rows and one of what leaves 64 − fillers, or one more.
  std::vector<std::int64_t> ends(5, 7);
  ends.push_back(64 - fillers - std::int64_t{5} * 8 - 1);
  EXPECT_EQ(TextRoom::of(prompts_of(ends), kContext).rows, 64);
  ++ends.back();
  EXPECT_EQ(TextRoom::of(prompts_of(ends), kContext).rows, 128);
}

TEST(TextRoom, KnowsThreeLengths) {
  EXPECT_EQ(TextRoom::of(prompts_of({15}), kContext).longest, 16);
  EXPECT_EQ(TextRoom::of(prompts_of({16}), kContext).longest, 32);
  EXPECT_EQ(TextRoom::of(prompts_of({32}), kContext).longest, kContext);
}

TEST(BatchTexts, GiveTheFeaturesOfTextsPackedAnew) {
  const at::NoGradGuard no_grad;
  model::Clip clip = random_clip();
  clip->eval();
  const model::Prompts first = prompts_of({4, 11, 2, 6}), second = prompts_of({9, 1, 1, 13});
  const std::int64_t context = clip->architecture().context_length;
  BatchTexts texts(clip, TextRoom::of(first, context));
  for (const model::Prompts& prompts : {first, second, first}) {
    texts.fill(prompts);
    // Products of other numbers of rows may sum in another order.
    EXPECT_TRUE(close(features_in_place(clip, texts), packed_features(clip, prompts), 1e-5));
  }
}

TEST(BatchTexts, StayInTheirPlaces) {
  const model::Clip clip = random_clip();
  const model::Prompts first = prompts_of({4, 11, 2, 6}), second = prompts_of({9, 1, 1, 13});
  BatchTexts texts(clip, TextRoom::of(first, clip->architecture().context_length));
  texts.fill(first);
  const engine::Chunk before = texts.embedded();
  const at::Tensor offsets = before.packing.offsets.clone();
  texts.fill(second);
  const engine::Chunk after = texts.embedded();
  EXPECT_TRUE(after.packing.offsets.is_same(before.packing.offsets));
  EXPECT_TRUE(after.packing.tiles.is_same(before.packing.tiles));
  EXPECT_TRUE(after.packing.ends.is_same(before.packing.ends));
  EXPECT_TRUE(after.place.positions.is_same(before.place.positions));
  EXPECT_FALSE(at::equal(before.packing.offsets, offsets)) << "they say what was filled in last";
}

TEST(BatchTexts, FillEveryRowAndCoverItByOneTile) {
  const model::Clip clip = random_clip();
  const model::Prompts prompts = prompts_of({4, 30, 2, 16, 7});
  const TextRoom room = TextRoom::of(prompts, clip->architecture().context_length);
  BatchTexts texts(clip, room);
  texts.fill(prompts);
  const engine::Chunk chunk = texts.embedded();
  EXPECT_EQ(chunk.rows.size(0), room.rows);
  EXPECT_EQ(chunk.packing.offsets[-1].item<std::int64_t>(), room.rows);
  EXPECT_GE(chunk.packing.offsets.diff().min().item<std::int64_t>(), 1);
  EXPECT_LE(chunk.packing.offsets.diff().max().item<std::int64_t>(), room.longest);
  at::Tensor covered = at::zeros({room.rows}, at::kLong);
  for (const at::Tensor& tile : chunk.packing.tiles.unbind()) {
    covered.narrow(0, tile[0].item<std::int64_t>(), tile[1].item<std::int64_t>()).add_(1);
  }
  EXPECT_TRUE(at::equal(covered, at::ones({room.rows}, at::kLong)));
}

TEST(BatchTexts, LeaveFillersWithoutGradient) {
  const model::Clip clip = random_clip();
  const TextRoom room = TextRoom::of(prompts_of({4, 11}), clip->architecture().context_length);
  const BatchTexts texts(clip, room);
  const at::Tensor gradient = at::randn({2, 3});
  const at::Tensor padded = texts.with_fillers(gradient);
  EXPECT_EQ(padded.size(0), room.sequences());
  EXPECT_TRUE(at::equal(texts.without_fillers(padded), gradient));
  EXPECT_EQ(padded.slice(0, 2).abs().sum().item<double>(), 0.0);
}

}  // namespace
}  // namespace clip_lora::testing
