#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "support/pictures.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::formula_picture;
using clip_lora::testing::message_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kItems = 7;
constexpr int kSize = 8;
const image::Preprocessing kPreprocessing = {.size_px = kSize, .resize_px = kSize};

class Loader : public ::testing::Test {
 protected:
  /// Picture i has label i, so that a batch's labels tell which pictures it holds.
  Loader() {
    for (int i = 0; i < kItems; ++i) {
      const auto path = folder_ / (std::to_string(i) + ".png");
      image::write_png(path, formula_picture(20 + i, 30 - i));
      items_.push_back({path, i});
    }
  }

  clip_lora::testing::TemporaryFolder folder_;
  std::vector<Item> items_;
};

std::vector<std::int64_t> labels_of(const Batch& batch) {
  const auto* labels = batch.labels.const_data_ptr<std::int64_t>();
  return {labels, labels + batch.labels.numel()};
}

std::vector<std::int64_t> epoch_of(TrainingLoader& loader, int batches) {
  std::vector<std::int64_t> labels;
  for (int i = 0; i < batches; ++i) {
    for (const std::int64_t label : labels_of(loader.next())) labels.push_back(label);
  }
  return labels;
}

TEST_F(Loader, TrainingShowsEachImageOncePerEpochAndTheLastBatchIsSmaller) {
  TrainingLoader loader(items_, kPreprocessing, 3, 1);
  for (int epoch = 0; epoch < 3; ++epoch) {
    EXPECT_EQ(loader.next().pixels.sizes(), (at::IntArrayRef{3, kSize, kSize, 3}));
    loader.next();
    EXPECT_EQ(loader.next().pixels.sizes(), (at::IntArrayRef{1, kSize, kSize, 3}));
  }
  auto labels = epoch_of(loader, 3);
  std::sort(labels.begin(), labels.end());
  EXPECT_THAT(labels, ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST_F(Loader, TrainingShufflesEveryEpochAnew) {
  TrainingLoader loader(items_, kPreprocessing, 7, 1);
  const auto first = epoch_of(loader, 1);
  const auto second = epoch_of(loader, 1);
  const auto third = epoch_of(loader, 1);
  EXPECT_FALSE(first == second && second == third);  // three equal shuffles of 7: 1 in 25 million
}

TEST_F(Loader, TrainingBatchLargerThanTheDataIsOneEpoch) {
  TrainingLoader loader(items_, kPreprocessing, 100, 1);
  EXPECT_EQ(loader.next().labels.size(0), kItems);
}

TEST_F(Loader, TrainingSequenceDependsOnTheSeedAlone) {
  TrainingLoader one(items_, kPreprocessing, 3, 5);
  TrainingLoader same(items_, kPreprocessing, 3, 5);
  TrainingLoader other(items_, kPreprocessing, 3, 6);
  bool differs = false;
  for (int i = 0; i < 10; ++i) {
    const Batch batch = one.next();
    const Batch again = same.next();
    EXPECT_TRUE(at::equal(batch.pixels, again.pixels));
    EXPECT_TRUE(at::equal(batch.labels, again.labels));
    const Batch unlike = other.next();
    differs = differs || !at::equal(batch.labels, unlike.labels) || !at::equal(batch.pixels, unlike.pixels);
  }
  EXPECT_TRUE(differs);
}

TEST_F(Loader, TrainingDrawsANewViewEachEpoch) {
  TrainingLoader loader({items_[0]}, kPreprocessing, 1, 1);
  const auto first = loader.next().pixels;
  const auto second = loader.next().pixels;
  const auto third = loader.next().pixels;
  EXPECT_FALSE(at::equal(first, second) && at::equal(second, third));
}

TEST_F(Loader, TrainingMayEndWhileABatchIsPrepared) {
  TrainingLoader loader(items_, image::Preprocessing{}, 7, 1);
}

TEST_F(Loader, EvaluationShowsEveryViewOnceInOrder) {
  EvaluationLoader loader(items_, kPreprocessing, 3);
  std::vector<std::int64_t> labels;
  int row = 0;
  while (const auto batch = loader.next()) {
    for (const std::int64_t label : labels_of(*batch)) labels.push_back(label);
    for (int i = 0; i < batch->pixels.size(0); ++i, ++row) {
      const auto expected = image::evaluation_view(formula_picture(20 + row, 30 - row), kPreprocessing).rgb;
      const auto view = batch->pixels[i].contiguous();
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view.const_data_ptr<std::uint8_t>()));
    }
  }
  EXPECT_THAT(labels, ElementsAre(0, 1, 2, 3, 4, 5, 6));
  EXPECT_FALSE(loader.next().has_value());
}

TEST_F(Loader, EvaluationOfNothingHasNoBatch) {
  EXPECT_FALSE(EvaluationLoader({}, kPreprocessing, 3).next().has_value());
}

TEST_F(Loader, ReportsAnImageThatCannotBeRead) {
  items_[4].image = folder_ / "absent.png";
  EXPECT_THAT(message_of<DataError>([&] { TrainingLoader(items_, kPreprocessing, 3, 1); }),
              HasSubstr("absent.png"));
  EXPECT_THAT(message_of<DataError>([&] { decode_all(items_); }), HasSubstr("absent.png"));
  EvaluationLoader loader(items_, kPreprocessing, 3);
  EXPECT_TRUE(loader.next().has_value());
  EXPECT_THAT(message_of<DataError>([&] { loader.next(); }), HasSubstr("absent.png"));
}

TEST_F(Loader, DecodesAllInOrder) {
  const auto images = decode_all(items_);
  ASSERT_EQ(images.size(), items_.size());
  for (int i = 0; i < kItems; ++i)
    EXPECT_EQ(images[static_cast<std::size_t>(i)].rgb, formula_picture(20 + i, 30 - i).rgb);
}

TEST(Normalise, EqualsTheFormulaPerChannel) {
  const auto pixels = at::arange(2 * 4 * 4 * 3, at::kByte).view({2, 4, 4, 3});
  const auto values = normalise(pixels, kPreprocessing, at::kCPU, at::kFloat);
  ASSERT_EQ(values.sizes(), (at::IntArrayRef{2, 3, 4, 4}));
  EXPECT_TRUE(values.is_contiguous());
  constexpr std::array<double, 3> kMeans = {0.48145466, 0.4578275, 0.40821073};
  constexpr std::array<double, 3> kDeviations = {0.26862954, 0.26130258, 0.27577711};
  for (int b = 0; b < 2; ++b) {
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 4; ++x) {
        for (int c = 0; c < 3; ++c) {
          const double pixel = ((b * 4 + y) * 4 + x) * 3 + c;
          // Four float32 roundings of values up to 2.
          EXPECT_NEAR(values[b][c][y][x].item<float>(), (pixel / 255 - kMeans[c]) / kDeviations[c], 1e-6);
        }
      }
    }
  }
}

TEST(Normalise, TakesItsNumbersFromThePreprocessing) {
  const image::Preprocessing preprocessing = {
      .rescale_factor = 1.0 / 128, .mean = {0.5F, 1.0F, 0.0F}, .standard_deviation = {0.5F, 2.0F, 0.25F}};
  const auto pixels = at::tensor({64, 128, 32}, at::kByte).view({1, 1, 1, 3});
  const auto values = normalise(pixels, preprocessing, at::kCPU, at::kFloat);
  EXPECT_TRUE(at::equal(values.flatten(), at::tensor({0.0F, 0.0F, 1.0F})));  // by hand, exact in binary
}

TEST(Normalise, RoundsToTheTypeLast) {
  const auto pixels = at::arange(48, at::kByte).view({1, 4, 4, 3});
  const auto half = normalise(pixels, kPreprocessing, at::kCPU, at::kHalf);
  EXPECT_EQ(half.scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(half, normalise(pixels, kPreprocessing, at::kCPU, at::kFloat).to(at::kHalf)));
}

}  // namespace
}  // namespace clip_lora::data
