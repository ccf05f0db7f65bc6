#include <gmock/gmock.h>
#include <torch/torch.h>

#include <csignal>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"
#include "clip_lora/image/codec.hpp"
#include "clip_lora/image/image.hpp"
#include "clip_lora/model/checkpoint.hpp"
#include "clip_lora/train/evaluate.hpp"
#include "clip_lora/train/trainer.hpp"
#include "support/close.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"
#include "support/tiny_model.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

constexpr int kSizePx = 24;
const image::Preprocessing kPreprocessing = {.size_px = kSizePx, .resize_px = kSizePx};
constexpr int kClasses = 6;

/// A folder of random pictures of the model's input size, and a model that looks at them.
class TrainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int i = 0; i < 11; ++i) {
      const auto pixels = at::randint(0, 256, {kSizePx, kSizePx, 3}, at::kByte);
      const auto path = folder_ / (std::to_string(i) + ".png");
      const auto* bytes = pixels.const_data_ptr<std::uint8_t>();
      image::write_png(path, {kSizePx, kSizePx, std::vector<std::uint8_t>(bytes, bytes + pixels.numel())});
      items_.push_back({path, i % kClasses});
      pixels_.push_back(pixels);
    }
  }

  /// The pictures as the model sees them at evaluation, [N, 3, R, R], by the formula.
  at::Tensor normalised() const {
    const auto mean = torch::tensor({0.48145466, 0.4578275, 0.40821073}, at::kDouble);
    const auto deviation = torch::tensor({0.26862954, 0.26130258, 0.27577711}, at::kDouble);
    return ((at::stack(pixels_).to(at::kDouble) / 255.0 - mean) / deviation).permute({0, 3, 1, 2});
  }
  model::Prompts prompts() const { return model::make_prompts(rows_); }

  TemporaryFolder folder_;
  std::vector<data::Item> items_;
  std::vector<at::Tensor> pixels_;
  model::Clip clip_ = random_clip();
  std::vector<std::vector<std::int64_t>> rows_ = random_prompt_rows(tiny_architecture(), {4, 9, 2, 6, 5, 3});
};

TEST_F(TrainTest, EvaluationCountsWhatTheOraclesCosinesDecide) {
  const auto model = oracle_of(clip_);
  const auto cosine = oracle_cosine(oracle_image_features(model, normalised()),
                                    oracle_text_features(model, as_tensor(rows_)));
  // The labels that make exactly the first seven pictures right.
  const auto nearest = cosine.argmax(1);
  for (std::size_t i = 0; i < items_.size(); ++i) {
    const auto best = nearest[static_cast<std::int64_t>(i)].item<int>();
    items_[i].label = i < 7 ? best : (best + 1) % kClasses;
  }
  data::EvaluationLoader loader(items_, kPreprocessing, /*batch_size=*/4);
  std::vector<std::int64_t> done;
  const auto accuracy = train::evaluate(clip_, train::class_features(clip_, prompts()), loader,
                                        [&](std::int64_t images) { done.push_back(images); });
  EXPECT_EQ(accuracy.correct, 7);
  EXPECT_EQ(accuracy.total, 11);
  EXPECT_DOUBLE_EQ(accuracy.percent(), 700.0 / 11.0);
  EXPECT_EQ(done, (std::vector<std::int64_t>{4, 8, 11}));
}

TEST_F(TrainTest, EvaluationOfNothingIsZeroPercent) { EXPECT_EQ(train::Accuracy{}.percent(), 0.0); }

TEST_F(TrainTest, ClassFeaturesAreTheOraclesWithLengthOne) {
  const auto features = train::class_features(clip_, prompts());
  const auto expected = oracle_text_features(oracle_of(clip_), as_tensor(rows_));
  EXPECT_TRUE(close(features, expected / expected.norm(2, -1, true), 2e-5));
  EXPECT_EQ(features.scalar_type(), at::kFloat);
  EXPECT_FALSE(features.requires_grad());
}

TEST_F(TrainTest, ClassFeaturesOfManyPromptsDoNotDependOnHowTheyAreChunked) {
  std::vector<std::int64_t> ends(2500, 2);
  ends[2400] = 5;
  const auto rows = random_prompt_rows(tiny_architecture(), ends);
  const auto features = train::class_features(clip_, model::make_prompts(rows));
  ASSERT_EQ(features.size(0), 2500);
  for (const std::size_t i : {0U, 1023U, 1024U, 2048U, 2400U, 2499U}) {
    const auto alone = train::class_features(clip_, model::make_prompts({rows[i]}));
    EXPECT_TRUE(close(features[static_cast<std::int64_t>(i)], alone[0], 1e-5)) << "prompt " << i;
  }
}

TEST_F(TrainTest, ClassPromptsFillTheTemplateAndKnowTheirEnds) {
  const text::Tokenizer tokenizer;
  const auto prompts =
      train::class_prompts(tokenizer, {"cat", "kite (bird of prey)"}, "a photo of a {}.", 77);
  const auto first = tokenizer.tokenize("a photo of a cat.");
  const auto second = tokenizer.tokenize("a photo of a kite (bird of prey).");
  const auto length = std::find(second.begin(), second.end(), text::kEndOfText) - second.begin() + 1;
  ASSERT_EQ(prompts.ids.size(1), length);
  EXPECT_TRUE(identical(prompts.ids, as_tensor({first, second}).slice(1, 0, length)));
  EXPECT_EQ(prompts.eot[1].item<std::int64_t>(), length - 1);
}

TEST_F(TrainTest, AnOverlongPromptIsADataErrorThatNamesIt) {
  const text::Tokenizer tokenizer;
  std::string name;
  for (int i = 0; i < 80; ++i) name += "cat ";
  EXPECT_THAT(message_of<DataError>([&] { train::class_prompts(tokenizer, {name}, "a photo of a {}.", 77); }),
              HasSubstr("cat cat"));
}

TEST_F(TrainTest, TrainingRunsItsIterationsAndReportsEach) {
  lora::Adapter adapter(clip_, {});
  engine::TrainingStep step(clip_, adapter, prompts(), {}, 7);
  data::TrainingLoader loader(items_, kPreprocessing, /*batch_size=*/4, /*seed=*/1);
  std::vector<std::int64_t> images;
  train::train(step, loader, clip_, 7, [&](const train::Progress& progress) {
    images.push_back(progress.images);
    EXPECT_EQ(progress.iteration, static_cast<std::int64_t>(images.size()));
    EXPECT_EQ(progress.total, 7);
    EXPECT_EQ(progress.learning_rate, step.learning_rate());
    EXPECT_GT(progress.loss(), 0.0);
  });
  // Eleven pictures in batches of four: the last of an epoch has three and counts as an iteration.
  EXPECT_EQ(images, (std::vector<std::int64_t>{4, 8, 11, 15, 19, 22, 26}));
  EXPECT_EQ(step.iteration(), 7);
}

TEST_F(TrainTest, ALossThatIsNotFiniteIsAnErrorAtTheEnd) {
  engine::TrainingStep step(clip_, lora::Adapter(clip_, {}), prompts(), {}, 2);
  {
    const at::NoGradGuard no_grad;
    clip_->text_projection.fill_(std::numeric_limits<float>::quiet_NaN());
  }
  data::TrainingLoader loader(items_, kPreprocessing, 4, 1);
  const auto run = [&] { train::train(step, loader, clip_, 2, [](const train::Progress&) {}); };
  EXPECT_THAT(message_of<Error>(run), HasSubstr("not finite"));
}

TEST_F(TrainTest, ASignalStopsTrainingBetweenTwoIterations) {
  engine::TrainingStep step(clip_, lora::Adapter(clip_, {}), prompts(), {}, 50);
  data::TrainingLoader loader(items_, kPreprocessing, 4, 1);
  catch_interrupts();  // last test of this program: the signal stays pending
  const auto run = [&] {
    train::train(step, loader, clip_, 50, [](const train::Progress& progress) {
      if (progress.iteration == 3) std::raise(SIGINT);
    });
  };
  EXPECT_THAT(message_of<Interrupted>(run), HasSubstr("3"));
  EXPECT_EQ(step.iteration(), 3);
  EXPECT_EQ(pending_interrupt(), SIGINT);
}

}  // namespace
}  // namespace clip_lora::testing
