#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <memory>
#include <random>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/loader.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "support/files.hpp"
#include "support/numbered_pictures.hpp"
#include "support/png_builder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::big_endian;
using clip_lora::testing::build_png;
using clip_lora::testing::message_of;
using clip_lora::testing::png_chunk;
using clip_lora::testing::read_bytes;
using clip_lora::testing::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kKeepNothing = 1;  // byte

class Loader : public clip_lora::testing::NumberedPictures {
 protected:
  TrainingLoader training_loader(const TrainingLoaderOptions& options) const {
    return TrainingLoader(items_, preprocessing_, options);
  }

  EvaluationLoader evaluation_loader(const EvaluationLoaderOptions& options) const {
    return EvaluationLoader(items_, preprocessing_, options);
  }

  /// Forty items, of which a single worker makes five in one go. Their labels still tell the pictures.
  void make_list_long() {
    items_.reserve(40);
    while (items_.size() < 40) items_.push_back(items_[items_.size() * 3 % kItems]);
  }

  static std::vector<std::int64_t> labels_of_next(TrainingLoader& loader, int batches) {
    std::vector<std::int64_t> labels;
    for (int i = 0; i < batches; ++i) {
      for (const std::int64_t label : labels_of(loader.next())) labels.push_back(label);
    }
    return labels;
  }

  static bool is_view(const at::Tensor& pixels, const image::Image& view) {
    const auto row = pixels.contiguous();
    return std::equal(view.rgb.begin(), view.rgb.end(), row.const_data_ptr<std::uint8_t>());
  }
};

void expect_same_batches(TrainingLoader& one, TrainingLoader& other) {
  for (int i = 0; i < 10; ++i) {
    const Batch batch = one.next();
    const Batch again = other.next();
    EXPECT_TRUE(at::equal(batch.pixels, again.pixels));
    EXPECT_TRUE(at::equal(batch.labels, again.labels));
    EXPECT_EQ(batch.items, again.items);
    EXPECT_EQ(batch.first_sample, again.first_sample);
  }
}

TEST_F(Loader, TrainingShowsEachImageOncePerEpochAndTheLastBatchIsSmaller) {
  auto loader = training_loader({.batch_size = 3});
  for (int epoch = 0; epoch < 3; ++epoch) {
    EXPECT_EQ(loader.next().pixels.sizes(), (at::IntArrayRef{3, kSize, kSize, 3}));
    loader.next();
    EXPECT_EQ(loader.next().pixels.sizes(), (at::IntArrayRef{1, kSize, kSize, 3}));
  }
  auto labels = labels_of_next(loader, 3);
  std::sort(labels.begin(), labels.end());
  EXPECT_THAT(labels, ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST_F(Loader, TrainingShufflesEveryEpochAnew) {
  auto loader = training_loader({.batch_size = 7});
  const auto first = labels_of_next(loader, 1);
  const auto second = labels_of_next(loader, 1);
  const auto third = labels_of_next(loader, 1);
  EXPECT_FALSE(first == second && second == third);  // three equal shuffles of 7: 1 in 25 million
}

TEST_F(Loader, TrainingBatchLargerThanTheDataIsOneEpoch) {
  EXPECT_EQ(training_loader({.batch_size = 100}).next().labels.size(0), kItems);
}

TEST_F(Loader, TrainingSequenceDependsOnTheSeedAlone) {
  auto loader = training_loader({.batch_size = 3, .seed = 5, .workers = 2});
  for (const int workers : {1, 2, 9}) {
    for (const std::uint64_t budget : {std::uint64_t{0}, kKeepNothing, picture_bytes(0) + picture_bytes(1)}) {
      auto one = training_loader({.batch_size = 3, .seed = 5});
      auto other =
          training_loader({.batch_size = 3, .seed = 5, .workers = workers, .image_memory_bytes = budget});
      expect_same_batches(one, other);
    }
  }
  auto other = training_loader({.batch_size = 3, .seed = 6});
  bool differs = false;
  for (int i = 0; i < 10; ++i) differs |= !at::equal(loader.next().labels, other.next().labels);
  EXPECT_TRUE(differs);
}

// One generator of the seed shuffles an epoch (Fisher and Yates, from the back), then gives each batch a seed
// per picture.
TEST_F(Loader, TrainingSequenceIsTheDocumentedOne) {
  auto loader = training_loader({.batch_size = 4, .seed = 9});
  std::mt19937_64 generator(9);
  std::array<int, kItems> order = {0, 1, 2, 3, 4, 5, 6};
  for (int epoch = 0; epoch < 3; ++epoch) {
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
    for (const int first : {0, 4}) {
      const Batch batch = loader.next();
      for (int row = 0; row < batch.pixels.size(0); ++row) {
        const auto shown = picture(order[static_cast<std::size_t>(first) + static_cast<std::size_t>(row)]);
        std::mt19937_64 view_generator(generator());
        const auto view = image::draw_training_view(shown.height, shown.width, view_generator);
        EXPECT_TRUE(is_view(batch.pixels[row], image::training_view(shown, view, preprocessing_)));
      }
    }
  }
}

TEST_F(Loader, TrainingSaysWhichItemsABatchHoldsAndHowManyWereDrawnBefore) {
  for (Item& item : items_) item.label += 10;
  auto loader = training_loader({.batch_size = 3});
  std::int64_t drawn = 0;
  for (int i = 0; i < 9; ++i) {
    const Batch batch = loader.next();
    EXPECT_EQ(batch.first_sample, drawn);
    drawn += batch.labels.numel();
    std::vector<std::int64_t> labels;
    for (const std::int64_t item : batch.items) labels.push_back(item + 10);
    EXPECT_EQ(labels, labels_of(batch));
  }
  EXPECT_EQ(drawn, 3 * kItems);
}

TEST_F(Loader, TrainingOfSeveralProcessesMakesTheirSharesOfTheSameBatches) {
  constexpr int kProcesses = 4;  // an epoch's last batch is one picture
  TrainingLoader whole = training_loader({.batch_size = 3, .workers = 1});
  std::vector<std::unique_ptr<TrainingLoader>> shares;
  for (int process = 0; process < kProcesses; ++process) {
    const TrainingLoaderOptions options = {
        .batch_size = 3, .workers = 1, .process = process, .processes = kProcesses};
    shares.push_back(std::make_unique<TrainingLoader>(items_, preprocessing_, options));
  }
  for (int i = 0; i < 10; ++i) {
    const Batch expected = whole.next();
    std::vector<at::Tensor> pixels;
    for (const auto& share : shares) {
      const Batch batch = share->next();
      EXPECT_TRUE(at::equal(batch.labels, expected.labels));
      EXPECT_EQ(batch.items, expected.items);
      EXPECT_EQ(batch.first_sample, expected.first_sample);
      pixels.push_back(batch.pixels);
    }
    EXPECT_TRUE(at::equal(at::cat(pixels), expected.pixels));
  }
}

TEST_F(Loader, TrainingTellsItemsApartThatNameOneFile) {
  for (Item& item : items_) item = {items_[0].image, 0};
  auto items = training_loader({.batch_size = kItems}).next().items;
  std::sort(items.begin(), items.end());
  EXPECT_THAT(items, ElementsAre(0, 1, 2, 3, 4, 5, 6));
}

TEST_F(Loader, TrainingDrawsViewsAsTheAugmentationSays) {
  const image::Augmentation augmentation = {.smallest_scale = 0.9, .flip = false};
  auto loader = training_loader({.batch_size = 7, .seed = 3, .augmentation = augmentation});
  std::mt19937_64 generator(3);
  for (std::size_t i = kItems; i > 1; --i) generator();  // the shuffle
  const Batch batch = loader.next();
  for (std::size_t row = 0; row < kItems; ++row) {
    const auto shown = picture(static_cast<int>(batch.items[row]));
    std::mt19937_64 view_generator(generator());
    const auto view = image::draw_training_view(shown.height, shown.width, view_generator, augmentation);
    EXPECT_TRUE(is_view(batch.pixels[static_cast<std::int64_t>(row)],
                        image::training_view(shown, view, preprocessing_)));
  }
}

TEST_F(Loader, TrainingSequenceIsTheSameWhereATaskIsSeveralRows) {
  make_list_long();
  auto five_rows = training_loader({.batch_size = 40, .workers = 1});
  auto one_row = training_loader({.batch_size = 40, .workers = 5});
  expect_same_batches(five_rows, one_row);
}

TEST_F(Loader, TrainingOfNothingIsABug) {
  items_.clear();
  EXPECT_THROW(training_loader({}), c10::Error);
}

TEST_F(Loader, BatchesOfNothingAndNoWorkersAreBugs) {
  for (const int number : {0, -1}) {
    EXPECT_THROW(training_loader({.batch_size = number}), c10::Error);
    EXPECT_THROW(training_loader({.workers = number}), c10::Error);
    EXPECT_THROW(evaluation_loader({.batch_size = number}), c10::Error);
    EXPECT_THROW(evaluation_loader({.workers = number}), c10::Error);
  }
}

TEST_F(Loader, TrainingDrawsANewViewEachEpoch) {
  items_.resize(1);
  auto loader = training_loader({.batch_size = 1});
  const auto first = loader.next().pixels;
  const auto second = loader.next().pixels;
  const auto third = loader.next().pixels;
  EXPECT_FALSE(at::equal(first, second) && at::equal(second, third));
}

TEST_F(Loader, TrainingMayEndWhileABatchIsPrepared) {
  preprocessing_ = image::Preprocessing{};
  training_loader({.batch_size = 7, .workers = 2});
}

TEST_F(Loader, TrainingKeepsInOrderWhatTheBudgetHasRoomFor) {
  EXPECT_EQ(training_loader({}).images(), 7U);
  EXPECT_EQ(training_loader({}).images_in_memory(), 7U);
  EXPECT_EQ(training_loader({.image_memory_bytes = kKeepNothing}).images_in_memory(), 0U);
  const std::uint64_t three = picture_bytes(0) + picture_bytes(1) + picture_bytes(2);
  EXPECT_EQ(training_loader({.image_memory_bytes = three}).images_in_memory(), 3U);
  EXPECT_EQ(training_loader({.image_memory_bytes = three - 1}).images_in_memory(), 2U);
}

TEST_F(Loader, TrainingKeepsAFileOnceHoweverOftenItIsNamed) {
  for (Item& item : items_) item.image = items_[3].image;
  auto kept = training_loader({.batch_size = 3, .image_memory_bytes = picture_bytes(3)});
  EXPECT_EQ(kept.images(), 7U);
  EXPECT_EQ(kept.images_in_memory(), 7U);
  auto decoded = training_loader({.batch_size = 3, .image_memory_bytes = kKeepNothing});
  EXPECT_EQ(decoded.images_in_memory(), 0U);
  expect_same_batches(kept, decoded);
}

TEST_F(Loader, TrainingReportsAnImageWhoseHeaderCannotBeReadAtOnce) {
  const auto absent = (folder_ / "absent.png").string();
  const auto empty = (folder_ / "empty.png").string();
  const auto text = (folder_ / "text.png").string();
  write_bytes(empty, "");
  write_bytes(text, "no picture");
  for (const auto& path : {absent, empty, text}) {
    for (const std::uint64_t budget : {std::uint64_t{0}, kKeepNothing}) {
      items_[4].image = path;
      EXPECT_THAT(message_of<DataError>([&] { training_loader({.image_memory_bytes = budget}); }),
                  HasSubstr(path));
    }
  }
}

TEST_F(Loader, TrainingReportsADamagedImageWhenItIsDecodedAndGoesOn) {
  const std::string whole = read_bytes(items_[4].image);
  write_bytes(items_[4].image, whole.substr(0, whole.size() / 2));
  EXPECT_THAT(message_of<DataError>([&] { training_loader({}); }), HasSubstr("4.png"));

  auto loader = training_loader({.batch_size = 7, .image_memory_bytes = kKeepNothing});
  EXPECT_THAT(message_of<DataError>([&] { loader.next(); }), HasSubstr("4.png"));
  EXPECT_THAT(message_of<DataError>([&] { loader.next(); }), HasSubstr("4.png"));
  write_bytes(items_[4].image, whole);
  int failures = 0;  // of batches that were begun before the file was whole again
  for (int batch = 0; batch < 5; ++batch) {
    try {
      EXPECT_EQ(loader.next().labels.size(0), kItems);
    } catch (const DataError&) {
      ++failures;
    }
  }
  EXPECT_LT(failures, 5);
}

/// A PNG that is to be turned by 180 degrees.
std::string upside_down_png(const image::Image& upright) {
  std::string samples;
  for (std::size_t i = upright.rgb.size(); i > 0; i -= 3) {
    samples.append(reinterpret_cast<const char*>(&upright.rgb[i - 3]), 3);
  }
  // One entry in big-endian TIFF: tag 0x0112 (orientation), type 3 (16 bits), count 1, value 3.
  const std::string exif = std::string("MM\0*", 4) + big_endian(8) + std::string("\0\1", 2) +
                           big_endian(0x01120003) + big_endian(1) + big_endian(3 << 16) + big_endian(0);
  return build_png({}, static_cast<std::uint32_t>(upright.height), static_cast<std::uint32_t>(upright.width),
                   samples, png_chunk("eXIf", exif));
}

TEST_F(Loader, TurnsPhotosAsThePreprocessingSays) {
  for (int i = 0; i < kItems; ++i) {
    items_.push_back({(folder_ / ("down" + std::to_string(i) + ".png")).string(), i});
    write_bytes(items_.back().image, upside_down_png(picture(i)));
  }
  const std::vector<Item> upright(items_.begin(), items_.begin() + kItems);
  const std::vector<Item> upside_down(items_.begin() + kItems, items_.end());
  auto turned = preprocessing_;
  turned.orientation = image::Orientation::kApplyExif;

  for (const std::uint64_t budget : {std::uint64_t{0}, kKeepNothing}) {
    const TrainingLoaderOptions options = {.batch_size = 3, .image_memory_bytes = budget};
    TrainingLoader expected(upright, preprocessing_, options);
    TrainingLoader loader(upside_down, turned, options);
    expect_same_batches(expected, loader);
  }
  const auto view = EvaluationLoader(upside_down, turned, {.batch_size = 7}).next()->pixels;
  EXPECT_TRUE(at::equal(view, EvaluationLoader(upright, preprocessing_, {.batch_size = 7}).next()->pixels));
  EXPECT_FALSE(
      at::equal(view, EvaluationLoader(upside_down, preprocessing_, {.batch_size = 7}).next()->pixels));
}

TEST_F(Loader, EvaluationShowsEveryViewOnceInOrder) {
  for (const int workers : {1, 2, 9}) {
    auto loader = evaluation_loader({.batch_size = 3, .workers = workers});
    std::vector<std::int64_t> labels;
    int row = 0;
    while (const auto batch = loader.next()) {
      for (const std::int64_t label : labels_of(*batch)) labels.push_back(label);
      EXPECT_EQ(batch->items, labels_of(*batch));
      for (int i = 0; i < batch->pixels.size(0); ++i, ++row) {
        EXPECT_TRUE(is_view(batch->pixels[i], image::evaluation_view(picture(row), preprocessing_)));
      }
    }
    EXPECT_THAT(labels, ElementsAre(0, 1, 2, 3, 4, 5, 6));
    EXPECT_FALSE(loader.next().has_value());
  }
}

TEST_F(Loader, EvaluationKeepsTheOrderWhereATaskIsSeveralRows) {
  make_list_long();
  const auto batch = evaluation_loader({.batch_size = 40, .workers = 1}).next();
  ASSERT_EQ(batch->pixels.size(0), 40);
  const auto labels = labels_of(*batch);
  for (int row = 0; row < 40; ++row) {
    const int expected = items_[static_cast<std::size_t>(row)].label;
    EXPECT_EQ(labels[static_cast<std::size_t>(row)], expected);
    EXPECT_TRUE(is_view(batch->pixels[row], image::evaluation_view(picture(expected), preprocessing_)))
        << row;
  }
}

TEST_F(Loader, EvaluationReportsAnImageThatCannotBeReadInTheMiddleOfATask) {
  make_list_long();
  items_[12].image = (folder_ / "absent.png").string();  // of the rows 10 to 14
  auto loader = evaluation_loader({.batch_size = 40, .workers = 1});
  EXPECT_THAT(message_of<DataError>([&] { loader.next(); }), HasSubstr("absent.png"));
}

TEST_F(Loader, EvaluationOfNothingHasNoBatch) {
  items_.clear();
  EXPECT_FALSE(evaluation_loader({}).next().has_value());
}

TEST_F(Loader, EvaluationReportsAnImageThatCannotBeReadInItsPlace) {
  items_[4].image = (folder_ / "absent.png").string();
  auto loader = evaluation_loader({.batch_size = 3});
  EXPECT_TRUE(loader.next().has_value());
  EXPECT_THAT(message_of<DataError>([&] { loader.next(); }), HasSubstr("absent.png"));
}

TEST(Normalise, EqualsTheFormulaPerChannel) {
  const auto pixels = at::arange(2 * 4 * 4 * 3, at::kByte).view({2, 4, 4, 3});
  const auto values = normalise(pixels, image::Preprocessing{}, at::kCPU, at::kFloat);
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
  const auto half = normalise(pixels, image::Preprocessing{}, at::kCPU, at::kHalf);
  EXPECT_EQ(half.scalar_type(), at::kHalf);
  EXPECT_TRUE(at::equal(half, normalise(pixels, image::Preprocessing{}, at::kCPU, at::kFloat).to(at::kHalf)));
}

}  // namespace
}  // namespace clip_lora::data
