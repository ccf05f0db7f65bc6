#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/data/training_draws.hpp"
#include "clip_lora/ops/patches.hpp"
#include "support/files.hpp"
#include "support/numbered_pictures.hpp"
#include "support/png_builder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::formula_picture;
using clip_lora::testing::message_of;
using clip_lora::testing::read_bytes;
using clip_lora::testing::write_bytes;
using ::testing::HasSubstr;

constexpr std::uint64_t kPlenty = 1'000'000'000;

class Draws : public clip_lora::testing::NumberedPictures {
 protected:
  std::unique_ptr<TrainingDraws> draws(const TrainingDrawsOptions& options) const {
    return TrainingDraws::make(items_, preprocessing_, options);
  }

  Batch with_pixels(const TrainingDraws& draws, DrawnBatch batch) const {
    const auto count = static_cast<std::int64_t>(batch.requests.size());
    const auto bytes = static_cast<std::int64_t>(sizeof(ops::ViewRequest));
    const auto requests = at::from_blob(batch.requests.data(), {count, bytes}, at::kByte);
    return {ops::resized_views(draws.store(), requests, kSize, draws.largest_side()),
            at::tensor(at::ArrayRef<std::int64_t>(batch.labels), at::kLong), batch.items, batch.first_sample};
  }

  static void expect_equal(const Batch& batch, const Batch& expected) {
    EXPECT_TRUE(at::equal(batch.labels, expected.labels));
    EXPECT_TRUE(at::equal(batch.pixels, expected.pixels));
    EXPECT_EQ(batch.items, expected.items);
    EXPECT_EQ(batch.first_sample, expected.first_sample);
  }

  /// For several epochs, of which no batch size here divides the items.
  void expect_batches_of_the_loader() const {
    for (const int batch_size : {1, 3, 4, 100}) {
      for (const std::uint64_t seed : {1U, 9U}) {
        TrainingLoader loader(items_, preprocessing_, {.batch_size = batch_size, .seed = seed, .workers = 2});
        const auto made =
            draws({.batch_size = batch_size, .seed = seed, .workers = 2, .store_bytes = kPlenty});
        ASSERT_TRUE(made);
        EXPECT_EQ(made->images(), items_.size());
        for (int i = 0; i < 20; ++i) {
          const Batch expected = loader.next();
          expect_equal(with_pixels(*made, made->next()), expected);
        }
      }
    }
  }
};

TEST_F(Draws, AreTheLoadersBatches) { expect_batches_of_the_loader(); }

TEST_F(Draws, OfSeveralProcessesAreTheLoadersShares) {
  for (int process = 0; process < 3; ++process) {
    TrainingLoader loader(items_, preprocessing_,
                          {.batch_size = 4, .seed = 9, .workers = 2, .process = process, .processes = 3});
    const auto made = draws({.batch_size = 4,
                             .seed = 9,
                             .workers = 2,
                             .store_bytes = kPlenty,
                             .process = process,
                             .processes = 3});
    for (int i = 0; i < 10; ++i) expect_equal(with_pixels(*made, made->next()), loader.next());
  }
}

TEST_F(Draws, GoOnBehindSkippedBatchesAsTheLoaderDoes) {
  for (const std::int64_t skipped : {1, 2, 5, 13}) {
    TrainingLoader whole(items_, preprocessing_, {.batch_size = 3, .seed = 9, .workers = 2});
    for (std::int64_t i = 0; i < skipped; ++i) whole.next();
    TrainingLoader rest(items_, preprocessing_,
                        {.batch_size = 3, .seed = 9, .workers = 2, .skipped_batches = skipped});
    const auto made =
        draws({.batch_size = 3, .seed = 9, .workers = 2, .store_bytes = kPlenty, .skipped_batches = skipped});
    for (int i = 0; i < 10; ++i) {
      const Batch expected = whole.next();
      expect_equal(rest.next(), expected);
      expect_equal(with_pixels(*made, made->next()), expected);
    }
  }
}

TEST_F(Draws, AreTheLoadersBatchesOfAnotherAugmentation) {
  const auto augmentation = image::parse_augmentation("open_clip");
  TrainingLoader loader(items_, preprocessing_,
                        {.batch_size = 3, .seed = 4, .augmentation = augmentation, .workers = 2});
  const auto made =
      draws({.batch_size = 3, .seed = 4, .augmentation = augmentation, .workers = 2, .store_bytes = kPlenty});
  for (int i = 0; i < 10; ++i) expect_equal(with_pixels(*made, made->next()), loader.next());
}

TEST_F(Draws, AreTheLoadersBatchesOfPhotosThatAreTurned) {
  // A PNG of one entry in big-endian TIFF: tag 0x0112 (orientation), type 3 (16 bits), count 1, value 6 (a
  // quarter).
  preprocessing_.orientation = image::Orientation::kApplyExif;
  const std::string exif("MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0", 26);
  for (Item& item : items_) {
    const std::string png = read_bytes(item.image);
    const std::size_t behind_header = 8 + 25;
    write_bytes(item.image, png.substr(0, behind_header) + clip_lora::testing::png_chunk("eXIf", exif) +
                                png.substr(behind_header));
  }
  ASSERT_EQ(image::decode_image(items_[0].image, preprocessing_.orientation).height, picture(0).width);
  expect_batches_of_the_loader();
}

TEST_F(Draws, AreTheLoadersBatchesWhereSeveralItemsNameAFile) {
  items_.push_back({items_[2].image, 4});
  items_.push_back({items_[0].image, 0});
  expect_batches_of_the_loader();
  const auto once = draws({.store_bytes = kPlenty})->store().numel();
  items_.resize(kItems);
  EXPECT_EQ(draws({.store_bytes = kPlenty})->store().numel(), once);
}

TEST_F(Draws, KeepEachPictureInItsPlaceWhereTheyAreDecodedInSeveralPieces) {
  for (const int i : {1, 3}) {
    image::write_png(items_[static_cast<std::size_t>(i)].image, formula_picture(1700, 1700));  // 8.7 MB
  }
  const auto made = draws({.batch_size = 7, .workers = 3, .store_bytes = kPlenty});
  const DrawnBatch batch = made->next();
  for (std::size_t row = 0; row < batch.requests.size(); ++row) {
    const auto& request = batch.requests[row];
    const auto& item = items_[static_cast<std::size_t>(batch.labels[row])];
    const image::Image picture = image::decode_image(item.image);
    ASSERT_EQ(request.height, picture.height);
    ASSERT_EQ(request.width, picture.width);
    const auto* bytes = made->store().const_data_ptr<std::uint8_t>() + request.begin;
    EXPECT_TRUE(std::equal(picture.rgb.begin(), picture.rgb.end(), bytes));
  }
  EXPECT_EQ(made->largest_side(), 1700);
}

TEST_F(Draws, AreNotMadeOfMoreThanTheyMayTake) {
  const auto bytes = static_cast<std::uint64_t>(draws({.store_bytes = kPlenty})->store().numel());
  EXPECT_TRUE(draws({.store_bytes = bytes}));
  EXPECT_FALSE(draws({.store_bytes = bytes - 1}));
  EXPECT_FALSE(draws({}));
}

TEST_F(Draws, AreNotMadeForOtherFiltersThanBicubic) {
  EXPECT_TRUE(TrainingDraws::can_make_views(preprocessing_));
  for (const auto interpolation : {image::Interpolation::kNearest, image::Interpolation::kBilinear}) {
    preprocessing_.interpolation = interpolation;
    EXPECT_FALSE(TrainingDraws::can_make_views(preprocessing_));
    EXPECT_FALSE(draws({.store_bytes = kPlenty}));
  }
}

TEST_F(Draws, ReportAnImageThatCannotBeRead) {
  const std::string whole = read_bytes(items_[4].image);
  write_bytes(items_[4].image, whole.substr(0, whole.size() / 2));
  EXPECT_THAT(message_of<DataError>([&] { draws({.store_bytes = kPlenty}); }), HasSubstr("4.png"));
  items_[4].image = (folder_ / "absent.png").string();
  EXPECT_THAT(message_of<DataError>([&] { draws({.store_bytes = kPlenty}); }), HasSubstr("absent.png"));
}

TEST_F(Draws, OfNothingOrWithoutBatchesAreABug) {
  EXPECT_THROW(draws({.batch_size = 0, .store_bytes = kPlenty}), c10::Error);
  items_.clear();
  EXPECT_THROW(draws({.store_bytes = kPlenty}), c10::Error);
}

}  // namespace
}  // namespace clip_lora::data
