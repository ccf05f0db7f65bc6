#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/data/shapes_drawing.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::read_bytes;
using clip_lora::testing::TemporaryFolder;
using ::testing::SizeIs;

const ShapesDatasetSize kSmall = {.train = 2, .val = 1, .test = 3, .size_px = 32};

int shape_count() { return static_cast<int>(shape_class_names().size()); }

std::vector<int> shape_labels(const std::vector<Item>& items) {
  std::vector<int> labels;
  for (const Item& item : items) labels.push_back(item.label);
  return labels;
}

TEST(ShapeDistance, IsNegativeInsideACircleAndASquareOnly) {
  const int circle = 0;
  const int square = 2;
  ASSERT_EQ(shape_class_names()[circle], "circle");
  ASSERT_EQ(shape_class_names()[square], "square");
  const Point in_the_corner{0.7, 0.7};  // of the square, outside of the circle
  EXPECT_LT(shape_distance(circle, {}), 0.0);
  EXPECT_LT(shape_distance(square, in_the_corner), 0.0);
  EXPECT_GT(shape_distance(circle, in_the_corner), 0.0);
  EXPECT_GT(shape_distance(square, {0.0, 1.0}), 0.0);
}

TEST(ShapeDistance, EveryShapeLiesInTheSquareAndCoversATenthOfIt) {
  constexpr int kGrid = 60;  // points per unit
  for (int label = 0; label < shape_count(); ++label) {
    int inside = 0;
    for (int y = -2 * kGrid; y <= 2 * kGrid; ++y) {
      for (int x = -2 * kGrid; x <= 2 * kGrid; ++x) {
        const Point point{static_cast<double>(x) / kGrid, static_cast<double>(y) / kGrid};
        if (shape_distance(label, point) >= 0.0) continue;
        ++inside;
        ASSERT_LE(std::max(std::abs(point.x), std::abs(point.y)), 1.02) << shape_class_names()[label];
      }
    }
    EXPECT_GT(inside, 4 * kGrid * kGrid / 10) << shape_class_names()[label];
  }
}

TEST(DrawShape, TheLooksOfOneSceneDiffer) {
  std::mt19937_64 generator(1);
  const ShapeScene scene = random_shape_scene(4, generator);
  EXPECT_NE(draw_shape(scene, ShapeLook::kPaint, 32, generator).rgb,
            draw_shape(scene, ShapeLook::kThermal, 32, generator).rgb);
}

TEST(DrawShape, PaintShowsTheShapeInItsColourOnItsBackground) {
  std::mt19937_64 generator(1);
  ShapeScene scene;  // a circle in the middle
  const auto& colours = shape_colour_names();
  scene.paint = static_cast<int>(std::find(colours.begin(), colours.end(), "red") - colours.begin());
  scene.paper = static_cast<int>(std::find(colours.begin(), colours.end(), "blue") - colours.begin());
  const auto image = draw_shape(scene, ShapeLook::kPaint, 33, generator);
  const auto* middle = &image.rgb[std::size_t{16 * 33 + 16} * 3];
  const auto* corner = image.rgb.data();
  EXPECT_GT(middle[0], middle[2] + 50);  // shades of a colour stay within a few tens of each other
  EXPECT_GT(corner[2], corner[0] + 50);
}

TEST(RandomShapeScene, NeverPaintsAShapeInThePapersColour) {
  std::mt19937_64 generator(1);
  for (int i = 0; i < 1000; ++i) {
    const ShapeScene scene = random_shape_scene(i % shape_count(), generator);
    EXPECT_NE(scene.paint, scene.paper);
  }
}

TEST(RandomShapeScene, KeepsTheShapeInThePicture) {
  std::mt19937_64 generator(1);
  for (int i = 0; i < 1000; ++i) {
    const ShapeScene scene = random_shape_scene(i % shape_count(), generator);
    EXPECT_LE(std::max(std::abs(scene.centre.x), std::abs(scene.centre.y)) + scene.radius, 0.5 + 1e-12);
  }
}

TEST(WriteShapesDataset, IsReadAsACoopSplitWithEqualCountsPerClass) {
  const TemporaryFolder root;
  write_shapes_dataset(root.path(), 1, kSmall);
  const Dataset dataset = load_benchmark("shapes", root.path());
  EXPECT_EQ(dataset.class_names, shape_class_names());
  EXPECT_GE(shape_count(), 10);
  EXPECT_THAT(dataset.train, SizeIs(2 * shape_count()));
  EXPECT_THAT(dataset.val, SizeIs(shape_count()));
  EXPECT_THAT(dataset.test, SizeIs(3 * shape_count()));
  const auto labels = shape_labels(dataset.test);
  for (int label = 0; label < shape_count(); ++label)
    EXPECT_EQ(std::count(labels.begin(), labels.end(), label), 3);
}

TEST(WriteShapesDataset, TheFullSetHasAtLeastFortyTestPicturesPerClass) {
  EXPECT_GE(ShapesDatasetSize{}.test, 40);
  EXPECT_GE(ShapesDatasetSize{}.train, 16);
}

TEST(WriteShapesDataset, EveryPictureDecodesAndIsInOneSplitOnly) {
  const TemporaryFolder root;
  write_shapes_dataset(root.path(), 1, kSmall);
  const Dataset dataset = load_benchmark("shapes", root.path());
  std::set<std::filesystem::path> seen;
  for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
    for (const Item& item : *items) {
      EXPECT_TRUE(seen.insert(item.image).second) << item.image;
      const auto image = image::decode_image(item.image);
      EXPECT_EQ(image.width, kSmall.size_px);
      EXPECT_EQ(image.height, kSmall.size_px);
    }
  }
}

TEST(WriteShapesDataset, EqualSeedsWriteEqualBytesAndOthersDoNot) {
  const TemporaryFolder first;
  const TemporaryFolder second;
  const TemporaryFolder other;
  write_shapes_dataset(first.path(), 7, kSmall);
  write_shapes_dataset(second.path(), 7, kSmall);
  write_shapes_dataset(other.path(), 8, kSmall);
  const auto picture = std::filesystem::path("shapes") / "images" / "heart" / "3.png";
  const auto split = std::filesystem::path("shapes") / "split_zhou_Shapes.json";
  EXPECT_EQ(read_bytes(first / picture), read_bytes(second / picture));
  EXPECT_EQ(read_bytes(first / split), read_bytes(second / split));
  EXPECT_NE(read_bytes(first / picture), read_bytes(other / picture));
}

TEST(WriteShapesDataset, RefusesAFolderThatCannotBeMade) {
  const TemporaryFolder root;
  clip_lora::testing::write_bytes(root / "file", "x");
  EXPECT_THROW(write_shapes_dataset(root / "file", 1, kSmall), ConfigError);
}

}  // namespace
}  // namespace clip_lora::data
