#include <algorithm>
#include <limits>
#include <numeric>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/train/retrieval.hpp"
#include "support/close.hpp"
#include "support/throws.hpp"
#include "train_setting.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;
using train::compute_recall;
using train::Recall;
using train::RetrievalMetrics;

void ignore_encoded(std::int64_t) {}

at::Tensor whole_numbers(const std::vector<std::int64_t>& values) { return torch::tensor(values, at::kLong); }

/// Whether `row`'s first `k` of a stable descending sort hold one of `wanted`.
bool finds(const std::vector<float>& row, const std::vector<std::int64_t>& wanted, std::ptrdiff_t k) {
  std::vector<std::int64_t> order(row.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return row[static_cast<std::size_t>(a)] > row[static_cast<std::size_t>(b)];
  });
  const auto end = order.begin() + std::min(k, std::ssize(order));
  return std::find_first_of(order.begin(), end, wanted.begin(), wanted.end()) != end;
}

/// similarity: [Q, C]; wanted: of each query.
Recall sorted_recall(const at::Tensor& similarity, const std::vector<std::vector<std::int64_t>>& wanted) {
  const auto percent = [&](std::ptrdiff_t k) {
    std::int64_t found = 0;
    for (std::int64_t q = 0; q < similarity.size(0); ++q) {
      const at::Tensor row = similarity[q].contiguous();
      const auto* begin = row.const_data_ptr<float>();
      found += finds({begin, begin + row.size(0)}, wanted[static_cast<std::size_t>(q)], k) ? 1 : 0;
    }
    return 100.0 * static_cast<double>(found) / static_cast<double>(similarity.size(0));
  };
  return {percent(1), percent(5), percent(10)};
}

RetrievalMetrics sorted_metrics(const at::Tensor& images, const at::Tensor& texts,
                                const std::vector<std::int64_t>& image_of_text) {
  const at::Tensor similarity = images.matmul(texts.t());
  std::vector<std::vector<std::int64_t>> texts_of(static_cast<std::size_t>(images.size(0)));
  std::vector<std::vector<std::int64_t>> image_of;
  for (std::size_t j = 0; j < image_of_text.size(); ++j) {
    texts_of[static_cast<std::size_t>(image_of_text[j])].push_back(static_cast<std::int64_t>(j));
    image_of.push_back({image_of_text[j]});
  }
  return {sorted_recall(similarity, texts_of), sorted_recall(similarity.t(), image_of), images.size(0),
          texts.size(0)};
}

void expect_equal(const Recall& found, const Recall& expected) {
  EXPECT_DOUBLE_EQ(found.at_1, expected.at_1);
  EXPECT_DOUBLE_EQ(found.at_5, expected.at_5);
  EXPECT_DOUBLE_EQ(found.at_10, expected.at_10);
}

void expect_equal(const RetrievalMetrics& found, const RetrievalMetrics& expected) {
  expect_equal(found.image_to_text, expected.image_to_text);
  expect_equal(found.text_to_image, expected.text_to_image);
  EXPECT_EQ(found.images, expected.images);
  EXPECT_EQ(found.texts, expected.texts);
}

/// Each of `images` images at least once, the others anywhere, in any order.
std::vector<std::int64_t> random_images_of(std::int64_t images, std::int64_t texts) {
  const auto first = at::randperm(images, at::kLong);
  const auto image = at::cat({first, at::randint(images, {texts - images}, at::kLong)})
                         .index_select(0, at::randperm(texts, at::kLong));
  return {image.const_data_ptr<std::int64_t>(), image.const_data_ptr<std::int64_t>() + texts};
}

std::int64_t random_below(std::int64_t end) { return at::randint(end, {1}, at::kLong).item<std::int64_t>(); }

TEST(ComputeRecall, IsABruteForceStableSortsInAThousandCasesFullOfTies) {
  torch::manual_seed(1);
  for (int i = 0; i < 1000; ++i) {
    const std::int64_t images = 1 + random_below(30), texts = images + random_below(60);
    const std::int64_t embedding = 1 + random_below(6), levels = 2 + random_below(3);
    // Small whole numbers: every product is exact, and many are equal.
    const auto image = at::randint(-1, levels, {images, embedding}, at::kFloat);
    auto text = at::randint(-1, levels, {texts, embedding}, at::kFloat);
    // Captions repeated, for their own image and for others.
    text = text.index_select(0, at::randint(texts, {texts}, at::kLong));
    const auto image_of_text = random_images_of(images, texts);
    SCOPED_TRACE("case " + std::to_string(i));
    expect_equal(compute_recall(image, text, whole_numbers(image_of_text), 1 + random_below(500)),
                 sorted_metrics(image, text, image_of_text));
    if (HasFailure()) return;
  }
}

TEST(ComputeRecall, ACaptionThatAnEarlierImageHasTooComesAfterIt) {
  const auto image = torch::tensor({{1.0F, 0.0F}, {0.0F, 1.0F}});
  const auto text = torch::tensor({{1.0F, 0.0F}, {1.0F, 0.0F}});  // both images have the caption of the first
  const auto found = compute_recall(image, text, whole_numbers({0, 1}));
  // Image 0 finds its caption; for image 1 both are equal, and the other comes first.
  expect_equal(found.image_to_text, {50.0, 100.0, 100.0});
  expect_equal(found.text_to_image, {50.0, 100.0, 100.0});
  const auto swapped = compute_recall(image, text, whole_numbers({1, 0}));
  // Caption 0 is image 1's: image 0's equal one comes after it.
  expect_equal(swapped.image_to_text, {50.0, 100.0, 100.0});
}

TEST(ComputeRecall, CountsAnImageOnceItHasFoundTheBestOfItsCaptions) {
  // Image 0 has the captions 0, 1 and 6, of which the last is its best; five others are ahead of all of them.
  const auto image = torch::tensor({{1.0F, 0.0F}, {-1.0F, 0.0F}});
  const auto of_first = torch::tensor({0.1F, 0.2F, 0.9F, 0.8F, 0.7F, 0.6F, 0.3F, 0.95F});
  const auto text = at::stack({of_first, at::zeros({8})}, 1);
  const auto found = compute_recall(image, text, whole_numbers({0, 0, 1, 1, 1, 1, 0, 1}));
  // Of image 1, whose similarities are the negative ones, caption 5 is the best, behind 0, 1 and 6.
  expect_equal(found.image_to_text, {0.0, 50.0, 100.0});
  // Every caption is nearer to image 0, which is right for three of eight.
  expect_equal(found.text_to_image, {37.5, 100.0, 100.0});
}

TEST(ComputeRecall, DoesNotDependOnTheBlocks) {
  torch::manual_seed(2);
  const auto image = at::randint(-1, 2, {23, 4}, at::kFloat);
  const auto text = at::randint(-1, 2, {61, 4}, at::kFloat);
  const auto image_of_text = whole_numbers(random_images_of(23, 61));
  const auto whole = compute_recall(image, text, image_of_text);
  EXPECT_GT(whole.image_to_text.at_10, whole.image_to_text.at_1);
  // One query at a time; one or two less and more than 1, 2, 22 and all 23 images (of 61 captions) in a
  // block.
  for (const std::int64_t at_once : {1, 22, 23, 60, 61, 62, 121, 122, 123, 500, 1342, 1403, 1404})
    expect_equal(compute_recall(image, text, image_of_text, at_once), whole);
}

TEST(ComputeRecall, OfOneImageAndOneCaptionIsAll) {
  const auto found = compute_recall(at::ones({1, 3}), -at::ones({1, 3}), whole_numbers({0}));
  expect_equal(found.image_to_text, {100.0, 100.0, 100.0});
  expect_equal(found.text_to_image, {100.0, 100.0, 100.0});
}

TEST(ComputeRecall, FeaturesThatAreNotFiniteAreAnErrorThatCountsThem) {
  auto image = at::ones({3, 2}), text = at::ones({4, 2});
  const auto image_of_text = whole_numbers({0, 1, 2, 2});
  text[1][0] = std::numeric_limits<float>::quiet_NaN();
  text[3][1] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(message_of<Error>([&] { compute_recall(image, text, image_of_text); }),
              HasSubstr("the features of 2 of 4 captions are not finite"));
  image[2].fill_(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(message_of<Error>([&] { compute_recall(image, text, image_of_text); }),
              HasSubstr("the features of 1 of 3 images are not finite"));
}

TEST(ComputeRecall, RefusesCaptionsOfNoImageAndImagesWithoutCaption) {
  const auto recall_of = [](const std::vector<std::int64_t>& image_of_text) {
    compute_recall(at::ones({3, 2}), at::ones({4, 2}), whole_numbers(image_of_text));
  };
  EXPECT_THAT(message_of<c10::Error>([&] { recall_of({0, 1, 2, 3}); }), HasSubstr("there are 3"));
  EXPECT_THAT(message_of<c10::Error>([&] { recall_of({0, 1, 2, -1}); }), HasSubstr("images -1 to 2"));
  EXPECT_THAT(message_of<c10::Error>([&] { recall_of({0, 1, 1, 0}); }), HasSubstr("1 of 3 images have no"));
  EXPECT_THAT(message_of<c10::Error>([&] { recall_of({0, 1, 2}); }), HasSubstr("[3]"));
}

class RetrievalTest : public TrainTest {
 protected:
  at::Tensor captions_of(const std::vector<std::string>& captions) const {
    return train::caption_features(clip_, tokenizer_, captions, ignore_encoded);
  }
  static at::Tensor of_length_one(const at::Tensor& x) { return x / x.norm(2, -1, /*keepdim=*/true); }
};

// float32 through the towers; a correct implementation reaches 4e-6.
constexpr double kRetrievalTolerance = 2e-5;

TEST_F(RetrievalTest, ImageFeaturesAreTheOraclesWithLengthOneInTheirOrder) {
  auto loader = evaluation_loader();
  std::vector<std::int64_t> done;
  const auto found =
      train::image_features(clip_, loader, [&](std::int64_t images) { done.push_back(images); });
  const auto expected = of_length_one(oracle_image_features(oracle_of(clip_), normalised()));
  EXPECT_TRUE(close(found.to(at::kDouble), expected, kRetrievalTolerance));
  EXPECT_EQ(found.scalar_type(), at::kFloat);
  EXPECT_EQ(done, (std::vector<std::int64_t>{4, 8, 11}));
}

TEST_F(RetrievalTest, NoPicturesHaveNoFeatures) {
  items_.clear();
  auto loader = evaluation_loader();
  const auto found = train::image_features(clip_, loader, ignore_encoded);
  EXPECT_EQ(found.sizes(), (std::vector<std::int64_t>{0, clip_->architecture().embedding}));
}

TEST_F(RetrievalTest, CaptionFeaturesAreTheOraclesAndEqualOnesEqualToTheBit) {
  const std::vector<std::string> captions = {"a dog runs .", "two cats", "a dog runs .", "A man on a bike"};
  const auto found = captions_of(captions);
  for (std::size_t i = 0; i < captions.size(); ++i) {
    const auto ids = as_tensor({tokenizer_.tokenize(captions[i], kContext)});
    const auto expected = of_length_one(oracle_text_features(oracle_of(clip_), ids));
    EXPECT_TRUE(close(found[static_cast<std::int64_t>(i)].to(at::kDouble), expected[0], kRetrievalTolerance));
  }
  EXPECT_TRUE(identical(found[0], found[2]));
}

TEST_F(RetrievalTest, AnOverlongCaptionIsCutAndEndsInTheEndToken) {
  std::string exact = "cat";  // with start and end the context
  for (int i = 1; i < kContext - 2; ++i) exact += " cat";
  ASSERT_EQ(tokenizer_.tokenize(exact, kContext).back(), text::kEndOfText);
  EXPECT_TRUE(identical(captions_of({exact + " river missile"}), captions_of({exact})));
}

TEST_F(RetrievalTest, ManyCaptionsAreEncodedInParts) {
  std::vector<std::string> captions;
  for (int i = 0; i < 2500; ++i) captions.push_back("cat " + std::to_string(i));
  captions.push_back("cat 7");
  std::vector<std::int64_t> done;
  const auto found = train::caption_features(clip_, tokenizer_, captions,
                                             [&](std::int64_t texts) { done.push_back(texts); });
  EXPECT_EQ(done, (std::vector<std::int64_t>{2048, 2500}));
  ASSERT_EQ(found.size(0), 2501);
  EXPECT_TRUE(identical(found[2500], found[7]));
  for (const std::int64_t i : {0, 2047, 2048, 2499}) {
    const auto alone = captions_of({captions[static_cast<std::size_t>(i)]});
    EXPECT_TRUE(close(found[i], alone[0], kRetrievalTolerance)) << "caption " << i;
  }
}

}  // namespace
}  // namespace clip_lora::testing
