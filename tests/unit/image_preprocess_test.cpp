#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/image/preprocess.hpp"
#include "support/pictures.hpp"
#include "support/throws.hpp"

namespace clip_lora::image {
namespace {

using clip_lora::testing::crc32;
using clip_lora::testing::formula_picture;
using clip_lora::testing::message_of;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Preprocessing to_size(int size_px) { return {.size_px = size_px, .resize_px = size_px}; }

struct EvaluationCase {
  int height;
  int width;
  int size_px;
  std::uint32_t checksum;  // of torchvision's Resize and CenterCrop on Pillow 12.3
};

class EvaluationView : public ::testing::TestWithParam<EvaluationCase> {};

TEST_P(EvaluationView, EqualsPillowEveryByte) {
  const EvaluationCase& c = GetParam();
  const Image view = evaluation_view(formula_picture(c.height, c.width), to_size(c.size_px));
  EXPECT_EQ(view.height, c.size_px);
  EXPECT_EQ(view.width, c.size_px);
  EXPECT_EQ(crc32(view.rgb), c.checksum);
}

// 9, 11, 13 and 15 long: margins of 1, 3, 5 and 7 pixels, whose halves round to even.
INSTANTIATE_TEST_SUITE_P(Margins, EvaluationView,
                         ::testing::Values(EvaluationCase{8, 8, 8, 0x9173e16b},
                                           EvaluationCase{8, 9, 8, 0x9173e16b},
                                           EvaluationCase{8, 11, 8, 0xf7c943f5},
                                           EvaluationCase{13, 8, 8, 0xedab4106},
                                           EvaluationCase{15, 8, 8, 0x0249c1cc}));
INSTANTIATE_TEST_SUITE_P(Resizes, EvaluationView,
                         ::testing::Values(EvaluationCase{33, 100, 16, 0x90e15083},
                                           EvaluationCase{100, 33, 24, 0x8d08e826},
                                           EvaluationCase{64, 64, 32, 0x58b3c4d4}));
INSTANTIATE_TEST_SUITE_P(Strips, EvaluationView,
                         ::testing::Values(EvaluationCase{1, 40, 6, 0xed9e509b},
                                           EvaluationCase{40, 1, 6, 0x7c2aad96}));

TEST(EvaluationViewOfAStrip,
     NeedsNoMemoryForTheWholeResizedStrip) {  // which would be 224 x 44,800,000 pixels
  EXPECT_EQ(evaluation_view(Image{1, 200000, std::vector<std::uint8_t>(600000, 7)}, {}).rgb,
            std::vector<std::uint8_t>(std::size_t{224} * 224 * 3, 7));
}

struct ModeCase {
  int height;
  int width;
  std::uint32_t longest;  // of OpenCLIP 3.3's transforms to 16 x 16 pixels, filled with (10, 20, 30)
  std::uint32_t squash;
};

class ResizeModes : public ::testing::TestWithParam<ModeCase> {};

TEST_P(ResizeModes, EqualOpenClipEveryByte) {
  const ModeCase& c = GetParam();
  Preprocessing preprocessing = to_size(16);
  preprocessing.fill_color = {10, 20, 30};
  preprocessing.resize_mode = ResizeMode::kLongest;
  EXPECT_EQ(crc32(evaluation_view(formula_picture(c.height, c.width), preprocessing).rgb), c.longest);
  preprocessing.resize_mode = ResizeMode::kSquash;
  EXPECT_EQ(crc32(evaluation_view(formula_picture(c.height, c.width), preprocessing).rgb), c.squash);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ResizeModes,
                         ::testing::Values(ModeCase{33, 100, 0x555184cc, 0xfda430a1},
                                           ModeCase{100, 33, 0xc048bcdf, 0x254f04e5},
                                           ModeCase{16, 16, 0x48ec9c43, 0x48ec9c43},
                                           ModeCase{7, 5, 0x5d683727, 0xa323706c},
                                           ModeCase{101, 15, 0x72ea8871, 0x6f8e8ebe}));

TEST(EvaluationViewOfAPicture,
     MayResizeToMoreOrLessThanItCrops) {  // torchvision 0.26's Resize, CenterCrop(16)
  const auto view = [](int height, int width, int resize_px) {
    return evaluation_view(formula_picture(height, width), {.size_px = 16, .resize_px = resize_px});
  };
  EXPECT_EQ(crc32(view(33, 100, 20).rgb), 0xdf1c1689);
  EXPECT_EQ(crc32(view(33, 100, 9).rgb), 0x8f47c133);  // cropped along one axis, padded along the other
  EXPECT_EQ(crc32(view(13, 11, 9).rgb), 0x287c5212);
}

TEST(EvaluationViewOfAPicture, TakesTheFilter) {
  Preprocessing preprocessing = to_size(16);
  preprocessing.resize_mode = ResizeMode::kSquash;
  preprocessing.interpolation = Interpolation::kBilinear;
  EXPECT_EQ(crc32(evaluation_view(formula_picture(33, 100), preprocessing).rgb),
            0x742302d0);  // torchvision's
}

TEST(EvaluationViewOfAPicture, KeepsOnePixelOfAStripThatWouldVanish) {
  Preprocessing preprocessing = to_size(8);
  preprocessing.resize_mode = ResizeMode::kLongest;
  const Image view = evaluation_view(Image{1, 1000, std::vector<std::uint8_t>(3000, 9)}, preprocessing);
  std::vector<std::uint8_t> expected(std::size_t{8} * 8 * 3, 0);
  std::fill_n(expected.begin() + std::ptrdiff_t{3} * 8 * 3, 8 * 3,
              std::uint8_t{9});  // (8 − 1) / 2 rows above it
  EXPECT_EQ(view.rgb, expected);
}

TEST(NormaliseChw, SeparatesTheChannels) {
  Preprocessing preprocessing;
  preprocessing.mean = {0.0F, 0.5F, 0.25F};
  preprocessing.standard_deviation = {1.0F, 0.5F, 0.25F};
  const std::vector<std::uint8_t> rgb = {0, 0, 0, 255, 255, 255};
  std::vector<float> tensor(rgb.size());
  normalise_chw(rgb, preprocessing, tensor.data());
  EXPECT_THAT(tensor, ElementsAre(0.0F, 1.0F, -1.0F, 1.0F, -1.0F, 3.0F));
}

TEST(PreprocessingNames, AreReadAsTheyAreWritten) {
  for (const auto* name : {"shortest", "longest", "squash"})
    EXPECT_EQ(to_string(parse_resize_mode(name)), name);
  for (const auto* name : {"nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"}) {
    EXPECT_EQ(to_string(parse_interpolation(name)), name);
  }
}

TEST(PreprocessingNames, ThatAreUnknownGetTheNearest) {
  EXPECT_THAT(message_of<ConfigError>([] { parse_interpolation("bicubik"); }),
              AllOf(HasSubstr("'bicubik' is no interpolation"), HasSubstr("did you mean 'bicubic'")));
  EXPECT_THAT(message_of<ConfigError>([] { parse_resize_mode("shorter"); }),
              HasSubstr("did you mean 'shortest'"));
}

TEST(TrainingViewOfAPicture, TakesTheFilter) {
  Preprocessing preprocessing = to_size(16);
  preprocessing.interpolation = Interpolation::kLanczos;
  const TrainingView view{{.top = 3, .left = 5, .height = 20, .width = 31}, false};
  EXPECT_EQ(crc32(training_view(formula_picture(40, 60), view, preprocessing).rgb),
            0x4bb9e6e1);  // torchvision's
}

TEST(TrainingViewOfAPicture, EqualsPillowEveryByte) {
  const Image picture = formula_picture(40, 60);
  const Box box{.top = 3, .left = 5, .height = 20, .width = 31};
  EXPECT_EQ(crc32(training_view(picture, {box, false}, to_size(16)).rgb), 0xe380e55f);
  EXPECT_EQ(crc32(training_view(picture, {box, true}, to_size(16)).rgb), 0x25b114af);
  EXPECT_EQ(crc32(training_view(formula_picture(9, 7), {{0, 0, 9, 7}, true}, to_size(12)).rgb), 0xa87809e4);
}

TEST(TrainingViewOfAPicture, DoesNotSeeThePixelsAroundItsBox) {
  const Box box{.top = 10, .left = 12, .height = 9, .width = 8};
  const Image picture = formula_picture(30, 30);
  Image other = picture;
  for (auto& value : other.rgb) value = static_cast<std::uint8_t>(255 - value);
  for (int y = box.top; y < box.top + box.height; ++y) {
    for (int i = box.left * 3; i < (box.left + box.width) * 3; ++i)
      other.rgb[y * 90 + i] = picture.rgb[y * 90 + i];
  }
  EXPECT_EQ(training_view(picture, {box, false}, to_size(5)).rgb,
            training_view(other, {box, false}, to_size(5)).rgb);
}

TEST(DrawTrainingView, StaysInsideThePictureAndTheAllowedAreasAndRatios) {
  std::mt19937_64 generator(1);
  for (int i = 0; i < 5000; ++i) {
    const Box box = draw_training_view(300, 200, generator).box;
    EXPECT_GE(box.top, 0);
    EXPECT_GE(box.left, 0);
    EXPECT_LE(box.top + box.height, 300);
    EXPECT_LE(box.left + box.width, 200);
    // Each side is rounded by at most half a pixel.
    EXPECT_LE((box.width - 0.5) / (box.height + 0.5), 4.0 / 3.0);
    EXPECT_GE((box.width + 0.5) / (box.height - 0.5), 3.0 / 4.0);
    EXPECT_GE((box.width + 0.5) * (box.height + 0.5), 0.08 * 300 * 200);
  }
}

TEST(DrawTrainingView, FlipsHalfOfTheTime) {
  std::mt19937_64 generator(2);
  int flips = 0;
  for (int i = 0; i < 10000; ++i) flips += draw_training_view(64, 64, generator).flip ? 1 : 0;
  EXPECT_NEAR(flips, 5000, 250);  // five standard deviations of 10,000 fair draws
}

TEST(DrawTrainingView, CoversAreasUniformly) {
  // In a square of side 1 a box of area a and ratio r fits if sqrt(a · max(r, 1/r)) ≤ 1, so that large areas
  // are redrawn more often. The mean of the accepted areas, integrated numerically, is the oracle.
  double area_sum = 0.0;
  double weight_sum = 0.0;
  for (int i = 0; i < 2000; ++i) {
    const double area = 0.08 + 0.92 * (i + 0.5) / 2000;
    const double accepted = std::min(1.0, -std::log(area) / std::log(4.0 / 3.0));  // part of the log-ratios
    area_sum += area * accepted;
    weight_sum += accepted;
  }
  std::mt19937_64 generator(3);
  double mean = 0.0;
  for (int i = 0; i < 20000; ++i) {
    const Box box = draw_training_view(1000, 1000, generator).box;
    mean += box.height * 1e-3 * box.width * 1e-3 / 20000;
  }
  EXPECT_NEAR(mean, area_sum / weight_sum, 0.01);  // the mean's standard deviation is 0.0018
}

TEST(DrawTrainingView, FallsBackToTheCentreOfAStrip) {
  std::mt19937_64 generator(4);
  const Box wide =
      draw_training_view(10, 1000, generator).box;  // a box of 8 % of it is at least 24 pixels high
  EXPECT_EQ(wide.top, 0);
  EXPECT_EQ(wide.height, 10);
  EXPECT_EQ(wide.width, 13);  // round(10 · 4/3)
  EXPECT_EQ(wide.left, (1000 - 13) / 2);
  const Box tall = draw_training_view(1000, 10, generator).box;
  EXPECT_EQ(tall.left, 0);
  EXPECT_EQ(tall.width, 10);
  EXPECT_EQ(tall.height, 13);  // round(10 / (3/4))
  EXPECT_EQ(tall.top, (1000 - 13) / 2);
}

TEST(DrawTrainingView, KeepsToTheAugmentation) {
  const Augmentation augmentation = {.smallest_scale = 0.9, .flip = false};
  std::mt19937_64 generator(5);
  double smallest = 1.0;
  for (int i = 0; i < 5000; ++i) {
    const TrainingView view = draw_training_view(1000, 1000, generator, augmentation);
    smallest = std::min(smallest, view.box.height * 1e-3 * view.box.width * 1e-3);
    EXPECT_FALSE(view.flip);
  }
  // Each side is rounded by at most half of a thousandth; of 5,000 draws the least comes that near.
  EXPECT_GE(smallest, 0.9 - 1e-3);
  EXPECT_LE(smallest, 0.901);
}

TEST(DrawTrainingView, IsCLIPLoRAsByDefault) {
  std::mt19937_64 by_default(6);
  std::mt19937_64 named(6);
  for (int i = 0; i < 100; ++i) {
    const TrainingView one = draw_training_view(300, 200, by_default);
    const TrainingView other = draw_training_view(300, 200, named, parse_augmentation("clip_lora"));
    EXPECT_EQ(one.box.top, other.box.top);
    EXPECT_EQ(one.box.left, other.box.left);
    EXPECT_EQ(one.box.height, other.box.height);
    EXPECT_EQ(one.flip, other.flip);
  }
}

TEST(Augmentations, HaveNames) {
  EXPECT_EQ(parse_augmentation("clip_lora"), (Augmentation{.smallest_scale = 0.08, .flip = true}));
  EXPECT_EQ(parse_augmentation("open_clip"), (Augmentation{.smallest_scale = 0.9, .flip = false}));
  for (const std::string name : {"clip_lora", "open_clip"})
    EXPECT_EQ(to_string(parse_augmentation(name)), name);
  EXPECT_EQ(to_string(Augmentation{.smallest_scale = 0.5, .flip = false}), "scale (0.5, 1), no flip");
  EXPECT_THAT(message_of<ConfigError>([] { parse_augmentation("openclip"); }), HasSubstr("'open_clip'"));
}

TEST(EvaluationBorder, LeavesOutTheBorder) {
  const Image picture = formula_picture(30, 40);
  Image inner{26, 36, {}};
  for (int y = 2; y < 28; ++y) {
    for (int i = 2 * 3; i < 38 * 3; ++i) inner.rgb.push_back(picture.rgb[std::size_t{120} * y + i]);
  }
  Preprocessing preprocessing = to_size(16);
  const auto expected = evaluation_view(inner, preprocessing).rgb;
  EXPECT_NE(evaluation_view(picture, preprocessing).rgb, expected);
  preprocessing.border_px = 2;
  EXPECT_EQ(evaluation_view(picture, preprocessing).rgb, expected);
}

TEST(EvaluationBorder, KeepsAPixelOfAPictureThatIsAllBorder) {
  Preprocessing preprocessing = to_size(16);
  preprocessing.border_px = 9;
  for (const auto& [height, width] : {std::pair{1, 1}, {2, 3}, {18, 30}}) {
    const Image view = evaluation_view(formula_picture(height, width), preprocessing);
    EXPECT_EQ(view.rgb.size(), 16U * 16U * 3U);
  }
}

TEST(DrawTrainingView, DependsOnTheGeneratorAlone) {
  std::mt19937_64 generator(0);
  const TrainingView view = draw_training_view(64, 64, generator);
  std::mt19937_64 again(0);
  const TrainingView same = draw_training_view(64, 64, again);
  EXPECT_EQ(view.box.top, same.box.top);
  EXPECT_EQ(view.box.width, same.box.width);
  EXPECT_EQ(view.flip, same.flip);
  EXPECT_EQ(generator(), again());
}

}  // namespace
}  // namespace clip_lora::image
