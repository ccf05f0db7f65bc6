#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "clip_lora/image/preprocess.hpp"
#include "clip_lora/ops/patches.hpp"
#include "support/throws.hpp"
#include "support/view_store.hpp"

namespace clip_lora::ops {
namespace {

using clip_lora::testing::message_of;
using clip_lora::testing::tall_strips;
using clip_lora::testing::ViewStore;
using ::testing::HasSubstr;

PixelNormalisation normalisation_of(const image::Preprocessing& preprocessing) {
  return {preprocessing.rescale_factor, preprocessing.mean, preprocessing.standard_deviation};
}

/// By image/'s pixels and ATen's own columns of patches.
at::Tensor expected_rows(const at::Tensor& pixels, std::int64_t patch,
                         const image::Preprocessing& preprocessing) {
  const auto images = at::empty({pixels.size(0), 3, pixels.size(1), pixels.size(2)}, at::kFloat);
  const std::int64_t size = images[0].numel();
  for (std::int64_t i = 0; i < pixels.size(0); ++i) {
    image::normalise_chw({pixels.const_data_ptr<std::uint8_t>() + i * size, static_cast<std::size_t>(size)},
                         preprocessing, images.data_ptr<float>() + i * size);
  }
  const auto columns = at::im2col(images, {patch, patch}, {1, 1}, {0, 0}, {patch, patch});  // [B, 3 p p, L]
  return columns.transpose(1, 2).reshape({-1, 3 * patch * patch});
}

TEST(PatchRows, EqualPatchesOfTheNormalisedPixels) {
  const image::Preprocessing usual;
  const image::Preprocessing other = {
      .rescale_factor = 1.0 / 127.5, .mean = {1.0F, 0.5F, 0.25F}, .standard_deviation = {0.5F, 3.0F, 0.7F}};
  for (const auto& preprocessing : {usual, other}) {
    for (const auto& [size_px, patch] :
         {std::pair{32, 16}, std::pair{28, 14}, std::pair{30, 5}, std::pair{8, 8}}) {
      const auto pixels = at::randint(0, 256, {3, size_px, size_px, 3}, at::kByte);
      const auto rows = patch_rows(pixels, patch, normalisation_of(preprocessing), at::kFloat);
      EXPECT_TRUE(at::equal(rows, expected_rows(pixels, patch, preprocessing))) << size_px << " " << patch;
    }
  }
}

TEST(PatchRows, AreRoundedToTheTypeLast) {
  const auto pixels = at::randint(0, 256, {2, 32, 32, 3}, at::kByte);
  const auto normalisation = normalisation_of({});
  const auto rows = patch_rows(pixels, 16, normalisation, at::kFloat);
  const auto with_class_rows = patch_rows(pixels, 16, normalisation, at::kFloat, /*class_row=*/true)
                                   .unflatten(0, {pixels.size(0), -1});
  EXPECT_TRUE(at::equal(with_class_rows.narrow(1, 1, with_class_rows.size(1) - 1).flatten(0, 1), rows));
  EXPECT_EQ(with_class_rows.select(1, 0).abs().max().item<float>(), 0.0F);
  EXPECT_TRUE(at::equal(patch_rows(pixels, 16, normalisation, at::kHalf), rows.to(at::kHalf)));
}

TEST(PatchRows, OfOtherShapesAreABug) {
  const auto pixels = at::zeros({2, 32, 32, 3}, at::kByte);
  EXPECT_THROW(patch_rows(pixels, 15, {}, at::kFloat), c10::Error);
  EXPECT_THROW(patch_rows(pixels.permute({0, 3, 1, 2}), 16, {}, at::kFloat), c10::Error);
  EXPECT_THROW(patch_rows(pixels.to(at::kFloat), 16, {}, at::kFloat), c10::Error);
}

void expect_views_of(const ViewStore& store, int size_px) {
  const auto views = resized_views(store.store(), store.requests(), size_px, store.largest_side());
  EXPECT_TRUE(at::equal(views, store.expected(size_px))) << size_px;
}

TEST(ResizedViews, AreThoseOfTheImageRoom) {
  ViewStore store(1);
  for (int i = 0; i < 6; ++i) store.add_picture(store.draw(1, 90), store.draw(1, 90));
  store.add_random_views(60);
  for (const int size_px : {1, 24, 33}) expect_views_of(store, size_px);
}

TEST(ResizedViews, OfABoxOfTheirSizeAreItsPixels) {
  ViewStore store(2);
  store.add_picture(30, 40);
  store.add_view(0, {{3, 7, 24, 24}, false});
  store.add_view(0, {{6, 16, 24, 24}, true});
  expect_views_of(store, 24);
}

TEST(ResizedViews, ShrinkTheHeightOfTallStripsFirst) { expect_views_of(tall_strips(), 20); }

TEST(ResizedViews, OfNothingAreNone) {
  const ViewStore store(1);
  EXPECT_EQ(resized_views(store.store(), store.requests(), 8, 1).sizes(), (at::IntArrayRef{0, 8, 8, 3}));
}

TEST(ResizedViews, OutsideThePictureOrTheStoreAreABug) {
  ViewStore store(1);
  store.add_picture(30, 40);
  const auto message_with = [&](const ViewRequest& request) {
    ViewStore wrong = store;
    wrong.add_view(0, {{0, 0, 30, 40}, false});
    wrong.request_list().back() = request;
    return message_of<c10::Error>([&] { resized_views(wrong.store(), wrong.requests(), 8, 40); });
  };
  const ViewRequest whole = {.width = 40, .height = 30, .box_height = 30, .box_width = 40};
  ViewRequest request = whole;
  request.begin = 1;
  EXPECT_THAT(message_with(request), HasSubstr("outside the store"));
  request = whole;
  request.begin = -1;
  EXPECT_THAT(message_with(request), HasSubstr("outside the store"));
  request = whole;
  request.left = 1;
  EXPECT_THAT(message_with(request), HasSubstr("outside its picture"));
  request = whole;
  request.box_height = 0;
  EXPECT_THAT(message_with(request), HasSubstr("outside its picture"));
  store.add_view(0, {{0, 0, 30, 40}, false});
  EXPECT_THAT(message_of<c10::Error>([&] { resized_views(store.store(), store.requests(), 8, 39); }),
              HasSubstr("larger than largest_side"));
}

}  // namespace
}  // namespace clip_lora::ops
