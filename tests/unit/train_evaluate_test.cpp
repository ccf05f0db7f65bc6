#include <limits>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "train_setting.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

// float32 through the towers; a correct implementation reaches 4e-6.
constexpr double kFeatureTolerance = 2e-5;

void ignore_progress(std::int64_t) {}

at::Tensor of_length_one(const at::Tensor& x) { return x / x.norm(2, -1, /*keepdim=*/true); }

class EvaluateTest : public TrainTest {
 protected:
  /// Class features that are far apart, so that rounding decides no order. [6, E].
  at::Tensor random_classes() const { return of_length_one(at::randn({6, clip_->architecture().embedding})); }

  /// Cosines of all pictures with `classes` by the oracle, [N, C] float64.
  at::Tensor cosines(const at::Tensor& classes) const {
    return oracle_cosine(oracle_image_features(oracle_of(clip_), normalised()), classes.to(at::kDouble));
  }

  train::Predictions predictions(const at::Tensor& classes) {
    auto loader = evaluation_loader();
    return train::evaluate(clip_, classes, loader, ignore_progress);
  }

  /// Normalised features of one prompt by the oracle, [E] float64.
  at::Tensor oracle_features(const std::string& prompt) const {
    return of_length_one(
        oracle_text_features(oracle_of(clip_), as_tensor({tokenizer_.tokenize(prompt, kContext)})))[0];
  }
};

TEST_F(EvaluateTest, RanksTheClassesByTheOraclesCosines) {
  const auto classes = random_classes();
  auto loader = evaluation_loader();
  std::vector<std::int64_t> done;
  const auto found =
      train::evaluate(clip_, classes, loader, [&](std::int64_t images) { done.push_back(images); });
  const auto cosine = cosines(classes);
  EXPECT_TRUE(identical(found.classes, cosine.argsort(1, /*descending=*/true).slice(1, 0, 5)));
  const auto expected = (100.0 * cosine).softmax(1).gather(1, found.classes);
  // The factor 100 on cosines of float32: a hundred times their rounding.
  EXPECT_TRUE(close(found.probabilities.to(at::kDouble), expected, 1e-3));
  EXPECT_EQ(found.probabilities.scalar_type(), at::kFloat);
  ASSERT_EQ(found.labels.size(0), 11);
  for (std::int64_t i = 0; i < 11; ++i) EXPECT_EQ(found.labels[i].item<std::int64_t>(), i % 6);
  EXPECT_EQ(done, (std::vector<std::int64_t>{4, 8, 11}));
}

TEST_F(EvaluateTest, PutsTheLowerLabelFirstWhereClassesAreEqual) {
  // Products with 0 are equal to the bit, whatever order a library sums them in.
  const auto found = predictions(at::zeros({6, clip_->architecture().embedding}));
  EXPECT_TRUE(identical(found.classes, at::arange(5).expand({11, 5}).contiguous()));
  EXPECT_TRUE(close(found.probabilities, at::full({11, 5}, 1.0 / 6.0), 1e-6));
}

TEST_F(EvaluateTest, RanksAllClassesWhereThereAreFewerThanFive) {
  const auto found = predictions(random_classes().slice(0, 0, 3));
  EXPECT_EQ(found.classes.sizes(), (std::vector<std::int64_t>{11, 3}));
  EXPECT_TRUE(close(found.probabilities.sum(1), at::ones({11}), 1e-5));
}

TEST_F(EvaluateTest, SaysNothingOfNoPictures) {
  items_.clear();
  const auto found = predictions(random_classes());
  EXPECT_EQ(found.labels.sizes(), (std::vector<std::int64_t>{0}));
  EXPECT_EQ(found.classes.sizes(), (std::vector<std::int64_t>{0, 5}));
  EXPECT_EQ(found.probabilities.sizes(), (std::vector<std::int64_t>{0, 5}));
}

TEST_F(EvaluateTest, ProbabilitiesThatAreNotFiniteAreAnErrorThatCountsTheirPictures) {
  auto classes = random_classes();
  classes[2][0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(message_of<Error>([&] { predictions(classes); }), HasSubstr("11 of 11 images are not finite"));
  const auto three = at::stack(pixels_).slice(0, 0, 3);
  engine::ImageEncoder encoder(clip_, kPreprocessing);
  EXPECT_THAT(message_of<Error>([&] { train::class_probabilities(encoder, classes, three); }),
              HasSubstr("3 of 3 images are not finite"));
}

TEST_F(EvaluateTest, ClassProbabilitiesAreTheSoftmaxOfAHundredCosines) {
  const auto classes = random_classes();
  engine::ImageEncoder encoder(clip_, kPreprocessing);
  const auto found = train::class_probabilities(encoder, classes, at::stack(pixels_));
  EXPECT_TRUE(close(found.to(at::kDouble), (100.0 * cosines(classes)).softmax(1), 1e-3));
  EXPECT_EQ(found.scalar_type(), at::kFloat);
  EXPECT_FALSE(found.requires_grad());
}

TEST_F(EvaluateTest, ClassFeaturesOfOnePromptAreTheOraclesWithLengthOne) {
  const auto features = train::class_features(clip_, tokenizer_, plain_prompts());
  ASSERT_EQ(features.size(0), 6);
  EXPECT_TRUE(
      close(features[2].to(at::kDouble), oracle_features("a photo of a annual crop."), kFeatureTolerance));
  EXPECT_TRUE(close(features[3].to(at::kDouble), oracle_features("a photo of a kite (bird of prey)."),
                    kFeatureTolerance));
  EXPECT_EQ(features.scalar_type(), at::kFloat);
  EXPECT_FALSE(features.requires_grad());
}

TEST_F(EvaluateTest, ClassFeaturesOfSeveralTemplatesAreTheNormalisedMeanOfNormalisedOnes) {
  const std::vector<std::string> templates = {"a photo of a {}.", "{} from above", "art of the {}."};
  const auto features =
      train::class_features(clip_, tokenizer_, text::class_prompts({"cat", "river"}, templates));
  for (std::int64_t label = 0; label < 2; ++label) {
    at::Tensor sum = at::zeros({clip_->architecture().embedding}, at::kDouble);
    for (const auto& prompt_template : templates)
      sum += oracle_features(text::fill_template(prompt_template, label == 0 ? "cat" : "river"));
    EXPECT_TRUE(close(features[label].to(at::kDouble), of_length_one(sum), kFeatureTolerance)) << label;
  }
}

TEST_F(EvaluateTest, ClassesMayHaveDescriptionsOfDifferentCounts) {
  const text::ClassPrompts prompts = {
      {"a cat purrs"}, {"a river bends", "water", "a wide stream"}, {"rice", "wheat"}};
  const auto features = train::class_features(clip_, tokenizer_, prompts);
  ASSERT_EQ(features.size(0), 3);
  for (std::size_t label = 0; label < 3; ++label) {
    at::Tensor sum = at::zeros({clip_->architecture().embedding}, at::kDouble);
    for (const auto& prompt : prompts[label]) sum += oracle_features(prompt);
    EXPECT_TRUE(close(features[static_cast<std::int64_t>(label)].to(at::kDouble), of_length_one(sum),
                      kFeatureTolerance))
        << label;
  }
}

TEST_F(EvaluateTest, ClassFeaturesOfManyPromptsDoNotDependOnHowTheyAreChunked) {
  std::vector<std::string> names;
  for (int i = 0; i < 2500; ++i) names.push_back("cat " + std::to_string(i));
  const auto prompts = text::class_prompts(names, {"{}"});
  const auto features = train::class_features(clip_, tokenizer_, prompts);
  ASSERT_EQ(features.size(0), 2500);
  for (const std::size_t i : {0U, 1023U, 1024U, 2048U, 2400U, 2499U}) {
    const auto alone = train::class_features(clip_, tokenizer_, {prompts[i]});
    EXPECT_TRUE(close(features[static_cast<std::int64_t>(i)], alone[0], kFeatureTolerance)) << "prompt " << i;
  }
}

TEST_F(EvaluateTest, TokenizedPromptsStandByClassAndKnowTheirEnds) {
  const auto prompts = train::tokenize_prompts(
      tokenizer_, {{"a cat.", "the cat."}, {"a photo of a kite (bird of prey)."}}, kContext);
  const auto first = tokenizer_.tokenize("a cat.", kContext);
  const auto second = tokenizer_.tokenize("the cat.", kContext);
  const auto third = tokenizer_.tokenize("a photo of a kite (bird of prey).", kContext);
  const auto length = std::find(third.begin(), third.end(), text::kEndOfText) - third.begin() + 1;
  ASSERT_EQ(prompts.ids.size(1), length);
  EXPECT_TRUE(identical(prompts.ids, as_tensor({first, second, third}).slice(1, 0, length)));
  EXPECT_EQ(prompts.eot[2].item<std::int64_t>(), length - 1);
}

TEST_F(EvaluateTest, AnOverlongPromptIsADataErrorThatNamesIt) {
  std::string prompt;
  for (int i = 0; i < 80; ++i) prompt += "cat ";
  EXPECT_THAT(message_of<DataError>([&] { train::tokenize_prompts(tokenizer_, {{prompt}}, 77); }),
              HasSubstr("cat cat"));
}

}  // namespace
}  // namespace clip_lora::testing
