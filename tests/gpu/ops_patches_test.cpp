#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/patches.hpp"
#include "support/gpu.hpp"
#include "support/view_store.hpp"

namespace clip_lora::ops {
namespace {

using clip_lora::testing::tall_strips;
using clip_lora::testing::ViewStore;

constexpr PixelNormalisation kUsual = {
    1.0 / 255.0, {0.48145466F, 0.4578275F, 0.40821073F}, {0.26862954F, 0.26130258F, 0.27577711F}};

TEST(PatchRowsOnCuda, EqualTheDefinitionBitForBit) {
  CLIP_LORA_NEEDS_GPU();
  for (const auto& [size_px, patch] :
       {std::pair{224, 16}, std::pair{224, 32}, std::pair{224, 14}, std::pair{336, 14}, std::pair{30, 5},
        std::pair{64, 8}, std::pair{16, 16}}) {
    const auto pixels = at::randint(0, 256, {3, size_px, size_px, 3}, at::kByte);
    for (const auto dtype : {at::kHalf, at::kBFloat16, at::kFloat}) {
      const auto rows = patch_rows(pixels.cuda(), patch, kUsual, dtype);
      EXPECT_TRUE(at::equal(rows.cpu(), patch_rows(pixels, patch, kUsual, dtype))) << size_px << " " << patch;
      const auto with_class_rows = patch_rows(pixels.cuda(), patch, kUsual, dtype, /*class_row=*/true);
      EXPECT_TRUE(
          at::equal(with_class_rows.cpu(), patch_rows(pixels, patch, kUsual, dtype, /*class_row=*/true)));
    }
  }
}

TEST(PatchRowsOnCuda, OfUnalignedPixelsAreTheSame) {
  CLIP_LORA_NEEDS_GPU();
  const auto pixels = at::randint(0, 256, {std::int64_t{2} * 32 * 32 * 3}, at::kByte);
  const auto shifted =
      at::empty({pixels.numel() + 1}, at::TensorOptions(at::kCUDA).dtype(at::kByte)).slice(0, 1);
  shifted.copy_(pixels);
  const auto rows = patch_rows(shifted.view({2, 32, 32, 3}), 16, kUsual, at::kHalf);
  EXPECT_TRUE(at::equal(rows.cpu(), patch_rows(pixels.view({2, 32, 32, 3}), 16, kUsual, at::kHalf)));
}

void expect_views_of(const ViewStore& store, int size_px) {
  const auto views =
      resized_views(store.store().cuda(), store.requests().cuda(), size_px, store.largest_side());
  EXPECT_TRUE(views.is_cuda());
  EXPECT_TRUE(at::equal(views.cpu(), store.expected(size_px))) << size_px;
}

TEST(ResizedViewsOnCuda, AreThoseOfTheImageRoomBitForBit) {
  CLIP_LORA_NEEDS_GPU();
  ViewStore store(1);
  for (int i = 0; i < 12; ++i) store.add_picture(store.draw(1, 700), store.draw(1, 700));
  store.add_random_views(300);
  for (const int size_px : {24, 33, 64, 224, 336}) expect_views_of(store, size_px);
}

TEST(ResizedViewsOnCuda, OfABoxOfTheirSizeAreItsPixels) {
  CLIP_LORA_NEEDS_GPU();
  ViewStore store(2);
  store.add_picture(300, 401);
  store.add_view(0, {{3, 7, 224, 224}, false});
  store.add_view(0, {{76, 177, 224, 224}, true});
  expect_views_of(store, 224);
}

TEST(ResizedViewsOnCuda, ShrinkTheHeightOfTallStripsFirst) {
  CLIP_LORA_NEEDS_GPU();
  expect_views_of(tall_strips(), 20);
  expect_views_of(tall_strips(), 224);
}

TEST(ResizedViewsOnCuda, OfLargePhotosAreTheSame) {
  CLIP_LORA_NEEDS_GPU();
  ViewStore store(4);
  store.add_picture(3000, 4000);
  store.add_view(0, {{0, 0, 3000, 4000}, false});
  store.add_view(0, {{11, 501, 2900, 3333}, true});
  expect_views_of(store, 224);
  expect_views_of(store, 32);
}

TEST(ResizedViewsOnCuda, OfAStoreThatIsNotAlignedAreTheDefinitions) {
  CLIP_LORA_NEEDS_GPU();
  ViewStore store(5);
  store.add_picture(40, 50);
  store.add_random_views(3);
  const auto shifted = at::cat({at::zeros({1}, at::kByte), store.store()}).cuda().slice(0, 1);
  const auto views = resized_views(shifted, store.requests().cuda(), 24, store.largest_side());
  EXPECT_TRUE(at::equal(views.cpu(), store.expected(24)));
}

}  // namespace
}  // namespace clip_lora::ops
