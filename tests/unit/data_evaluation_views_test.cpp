#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/data/loader.hpp"
#include "support/files.hpp"
#include "support/numbered_pictures.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::uint64_t kNoMemory = 1;  // byte

class KeptViews : public clip_lora::testing::NumberedPictures {
 protected:
  std::shared_ptr<EvaluationViews> views(const EvaluationViewsOptions& options = {}) const {
    return std::make_shared<EvaluationViews>(items_.size(), kSize, options);
  }

  EvaluationLoader loader(std::shared_ptr<EvaluationViews> views) const {
    return EvaluationLoader(items_, preprocessing_,
                            {.batch_size = 3, .workers = 2, .views = std::move(views)});
  }

  static at::Tensor rest_of(EvaluationLoader&& loader) {
    std::vector<at::Tensor> pixels;
    while (const auto batch = loader.next()) pixels.push_back(batch->pixels);
    return at::cat(pixels);
  }

  void remove_pictures() const {
    for (const Item& item : items_) fs::remove(item.image);
  }

  /// By a pass without any, then by two when the pictures are gone.
  void expect_decoded_once(const EvaluationViewsOptions& options) const {
    const auto expected = rest_of(loader(nullptr));
    const auto kept = views(options);
    EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
    remove_pictures();
    EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
    EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
  }

  /// What --verbose says of the place of views.
  template <typename Make>
  static std::string told_by(const Make& make) {
    ::testing::internal::CaptureStderr();
    set_verbosity(Verbosity::kVerbose);
    make();
    set_verbosity(Verbosity::kNormal);
    return ::testing::internal::GetCapturedStderr();
  }
};

TEST_F(KeptViews, AreDecodedOnce) { expect_decoded_once({}); }

TEST_F(KeptViews, AreDecodedOnceIntoAFile) {
  const EvaluationViewsOptions in_a_file = {.memory_bytes = kNoMemory, .folder = folder_.path()};
  const std::string told = told_by([&] { views(in_a_file); });
  if (told.find("no room") != std::string::npos)
    GTEST_SKIP() << "the folder of temporary files lies in memory";
  EXPECT_THAT(told, AllOf(HasSubstr("temporary file"), HasSubstr(folder_.path().string())));
  expect_decoded_once(in_a_file);
}

TEST_F(KeptViews, OfAPassThatEndedEarlyAreCompletedByTheNext) {
  const auto expected = rest_of(loader(nullptr));
  const auto kept = views();
  loader(kept).next();
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
  remove_pictures();
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
}

TEST_F(KeptViews, HoldNoImageThatCannotBeRead) {
  const auto expected = rest_of(loader(nullptr));
  const auto kept = views();
  const fs::path hidden = folder_ / "hidden.png";
  fs::rename(items_[1].image, hidden);
  EXPECT_THROW(loader(kept).next(), DataError);
  fs::rename(hidden, items_[1].image);
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
}

TEST_F(KeptViews, DoNotPassOnWhatACallerWritesToABatch) {
  const auto kept = views();
  const auto expected = rest_of(loader(kept));
  loader(kept).next()->pixels.zero_();
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
}

TEST_F(KeptViews, LieInMemoryUpToWhatTheyMayTakeElseElsewhere) {
  const std::uint64_t bytes = std::uint64_t{kItems} * kSize * kSize * 3;
  EXPECT_THAT(told_by([&] { views({.memory_bytes = bytes}); }), HasSubstr("stay in memory"));
  EXPECT_THAT(told_by([&] { views({.memory_bytes = bytes - 1, .folder = folder_.path()}); }),
              Not(HasSubstr("stay in memory")));
  EXPECT_THAT(told_by([&] { views({.memory_bytes = kNoMemory, .folder = folder_ / "absent"}); }),
              HasSubstr("decodes them again"));
}

TEST_F(KeptViews, LeaveNoFileBehindNotEvenMeanwhile) {
  const auto kept = views({.memory_bytes = kNoMemory, .folder = folder_.path()});
  rest_of(loader(kept));
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_.path()), {}), kItems);
}

TEST_F(KeptViews, WithoutAPlaceAreDecodedByEachPass) {
  const auto kept = views({.memory_bytes = kNoMemory, .folder = folder_ / "absent"});
  const auto expected = rest_of(loader(nullptr));
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
  EXPECT_TRUE(at::equal(rest_of(loader(kept)), expected));
  std::vector<std::uint8_t> pixels(std::size_t{kSize} * kSize * 3);
  EXPECT_FALSE(kept->read(0, pixels.data()));
}

TEST_F(KeptViews, OfAnotherNumberOfImagesOrBesideACacheAreABug) {
  EXPECT_THROW(loader(std::make_shared<EvaluationViews>(kItems - 1, kSize)), c10::Error);
  EXPECT_THROW(
      EvaluationLoader(items_, preprocessing_, {.cache_folder = folder_ / "cache", .views = views()}),
      c10::Error);
}

TEST_F(KeptViews, OfNothingAreNoBatches) {
  items_.clear();
  EXPECT_FALSE(loader(views()).next().has_value());
}

}  // namespace
}  // namespace clip_lora::data
