#include <gmock/gmock.h>
#include <torch/torch.h>

#include <tuple>

#include "clip_lora/train/metrics.hpp"

namespace clip_lora::testing {
namespace {

using Entry = std::tuple<std::int64_t, std::int64_t, std::int64_t>;

/// One picture: its label, the classes in order, and the first one's probability.
struct Picture {
  std::int64_t label;
  std::vector<std::int64_t> classes;
  float probability;
};

train::Predictions predictions_of(const std::vector<Picture>& pictures) {
  const auto count = static_cast<std::int64_t>(pictures.size());
  const auto kept = static_cast<std::int64_t>(pictures.front().classes.size());
  train::Predictions result = {at::empty({count}, at::kLong), at::empty({count, kept}, at::kLong),
                               at::zeros({count, kept}, at::kFloat)};
  for (std::int64_t i = 0; i < count; ++i) {
    const Picture& picture = pictures[static_cast<std::size_t>(i)];
    result.labels[i] = picture.label;
    result.classes[i].copy_(torch::tensor(picture.classes, at::kLong));
    result.probabilities[i][0] = picture.probability;
  }
  return result;
}

/// Seven classes, of which class 4 has no pictures but is predicted, and class 6 has neither.
train::Metrics example() {
  return train::compute_metrics(predictions_of({{0, {0, 1, 2, 3, 4}, 0.90F},
                                                {0, {1, 0, 2, 3, 4}, 0.50F},
                                                {1, {1, 0, 2, 3, 4}, 0.85F},
                                                {2, {2, 0, 1, 3, 4}, 0.61F},
                                                {2, {0, 1, 3, 4, 5}, 0.41F},
                                                {2, {2, 1, 0, 3, 6}, 0.62F},
                                                {3, {0, 1, 2, 4, 3}, 0.30F},
                                                {5, {4, 0, 1, 2, 3}, 0.95F}}),
                                7);
}

TEST(Metrics, CountTheRightOnesAndThoseAmongTheFirstFive) {
  const auto metrics = example();
  EXPECT_EQ(metrics.total, 8);
  EXPECT_EQ(metrics.correct, 4);
  EXPECT_EQ(metrics.correct_in_top5, 6);  // all but those of class 5, and one of class 2
  EXPECT_DOUBLE_EQ(metrics.accuracy(), 50.0);
  EXPECT_DOUBLE_EQ(metrics.top5_accuracy(), 75.0);
}

TEST(Metrics, SayOfEachClassWhatBecameOfIt) {
  const auto classes = example().classes;
  ASSERT_EQ(classes.size(), 7U);
  EXPECT_EQ(classes[0].total, 2);
  EXPECT_EQ(classes[0].correct, 1);
  EXPECT_EQ(classes[0].predicted, 3);
  EXPECT_DOUBLE_EQ(classes[0].accuracy().value(), 50.0);
  EXPECT_DOUBLE_EQ(classes[0].f1(), 2.0 / 5.0);
  EXPECT_DOUBLE_EQ(classes[1].f1(), 2.0 / 3.0);
  EXPECT_DOUBLE_EQ(classes[2].accuracy().value(), 200.0 / 3.0);
  EXPECT_DOUBLE_EQ(classes[2].f1(), 4.0 / 5.0);
  EXPECT_DOUBLE_EQ(classes[3].accuracy().value(), 0.0);
  EXPECT_FALSE(classes[4].accuracy().has_value());
  EXPECT_EQ(classes[4].predicted, 1);
  EXPECT_DOUBLE_EQ(classes[4].f1(), 0.0);
  EXPECT_FALSE(classes[6].accuracy().has_value());
  EXPECT_DOUBLE_EQ(classes[6].f1(), 0.0);
}

TEST(Metrics, AverageF1OverTheClassesThatAppear) {
  // (2/5 + 2/3 + 4/5 + 0 + 0 + 0) / 6: class 4 is there because it was predicted, class 6 is not.
  EXPECT_NEAR(example().macro_f1(), 0.311111111111111, 1e-12);
}

TEST(Metrics, ListTheConfusionMatrixByLabelAndPredictedClass) {
  std::vector<Entry> entries;
  for (const auto& entry : example().confusion)
    entries.emplace_back(entry.label, entry.predicted, entry.count);
  EXPECT_EQ(entries, (std::vector<Entry>{
                         {0, 0, 1}, {0, 1, 1}, {1, 1, 1}, {2, 0, 1}, {2, 2, 2}, {3, 0, 1}, {5, 4, 1}}));
}

TEST(Metrics, ExpectedCalibrationErrorIsTheWeightedGapOfItsBins) {
  // Of the bins only (9/15, 10/15] has two pictures: |0.61 + 0.62 − 2|. The others' gaps are 0.10, 0.50,
  // 0.15, 0.41, 0.30 and 0.95. Together 3.18, over 8 pictures. The probabilities are float32.
  EXPECT_NEAR(example().expected_calibration_error, 3.18 / 8.0, 1e-7);
}

TEST(Metrics, CalibrationIsPerfectWhereABinsConfidenceIsItsAccuracy) {
  const auto metrics = train::compute_metrics(predictions_of({{0, {0, 1}, 0.5F}, {1, {0, 1}, 0.5F}}), 2);
  EXPECT_DOUBLE_EQ(metrics.expected_calibration_error, 0.0);
  const auto certain = train::compute_metrics(predictions_of({{0, {0, 1}, 1.0F}, {1, {1, 0}, 1.0F}}), 2);
  EXPECT_DOUBLE_EQ(certain.expected_calibration_error, 0.0);
}

TEST(Metrics, OfFewerThanFiveClassesEveryOneIsAmongTheFirstFive) {
  const auto metrics =
      train::compute_metrics(predictions_of({{2, {0, 1, 2}, 0.9F}, {1, {1, 0, 2}, 0.9F}}), 3);
  EXPECT_DOUBLE_EQ(metrics.accuracy(), 50.0);
  EXPECT_DOUBLE_EQ(metrics.top5_accuracy(), 100.0);
}

TEST(Metrics, AClassIsRightIfItMeansThePicturesLabel) {
  const auto predictions = predictions_of(
      {{7, {0, 1, 2}, 0.9F}, {7, {2, 0, 1}, 0.9F}, {5, {1, 0, 2}, 0.9F}, {5, {0, 1, 2}, 0.9F}});
  EXPECT_DOUBLE_EQ(train::accuracy(predictions, {7, 5, 7}), 75.0) << "classes 0 and 2 mean label 7";
  EXPECT_DOUBLE_EQ(train::accuracy(predictions, {7, 5, -1}), 50.0) << "class 2 means none";
  EXPECT_THROW(train::accuracy(predictions, {7, 5}), std::out_of_range) << "class 2 has no meaning";
  const train::Predictions none = {at::empty({0}, at::kLong), at::empty({0, 3}, at::kLong),
                                   at::empty({0, 3})};
  EXPECT_EQ(train::accuracy(none, {7, 5, 7}), 0.0);
}

TEST(Metrics, OfNothingAreZero) {
  const auto metrics =
      train::compute_metrics({at::empty({0}, at::kLong), at::empty({0, 5}, at::kLong), at::empty({0, 5})}, 6);
  EXPECT_EQ(metrics.total, 0);
  EXPECT_EQ(metrics.accuracy(), 0.0);
  EXPECT_EQ(metrics.top5_accuracy(), 0.0);
  EXPECT_EQ(metrics.macro_f1(), 0.0);
  EXPECT_EQ(metrics.expected_calibration_error, 0.0);
  EXPECT_TRUE(metrics.confusion.empty());
}

}  // namespace
}  // namespace clip_lora::testing
