#pragma once

#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "clip_lora/image/image.hpp"

namespace clip_lora::data {

// The procedural pictures of the demo: one shape on a background, drawn by signed distances. Everything is
// drawn from a 64-bit Mersenne Twister with arithmetic of our own, so that a seed gives the same picture with
// every standard library.

/// A point or a direction; y points down.
struct Point {
  double x = 0.0;
  double y = 0.0;
};

/// The shapes, by label: "circle", "ring", …
const std::vector<std::string>& shape_class_names();

/// Signed distance from `point` to the outline of shape `label` about the origin, negative inside. The shape
/// fills the square [-1, 1]² roughly; the distance is exact or a close bound near the outline.
double shape_distance(int label, Point point);

/// Colours of shapes and of the paper behind them in the painted look.
const std::vector<std::string>& shape_colour_names();

/// What is on a picture; captions can be made of it.
struct ShapeScene {
  int label = 0;        ///< into shape_class_names
  int paint = 0;        ///< into shape_colour_names
  int paper = 0;        ///< into shape_colour_names; pale where paint is dark, dark where it is pale
  Point centre;         ///< in units of the picture's side, from its middle
  double radius = 0.4;  ///< in units of the picture's side
  double angle = 0.0;   ///< radians
};

/// How a scene is drawn: in paint, as the demo model knows the shapes, or through a thermal camera in false
/// colours, as it has never seen them.
enum class ShapeLook { kPaint, kThermal };

/// A scene of shape `label` with everything else drawn at random.
ShapeScene random_shape_scene(int label, std::mt19937_64& generator);

/// The picture [size_px, size_px] of `scene`; `generator` draws shading, texture and noise.
image::Image draw_shape(const ShapeScene& scene, ShapeLook look, int size_px, std::mt19937_64& generator);

/// Pictures per class of the written data set.
struct ShapesDatasetSize {
  int train = 16;
  int val = 4;
  int test = 50;
  int size_px = 128;
};

/// Writes the thermal pictures of every shape as `root_path/shapes/images/<class>/<n>.png` and their CoOp
/// split `root_path/shapes/split_zhou_Shapes.json`, for load_benchmark. Equal seeds write equal bytes. Throws
/// ConfigError if `root_path` cannot be written.
void write_shapes_dataset(const std::filesystem::path& root_path, std::uint64_t seed,
                          const ShapesDatasetSize& size = {});

}  // namespace clip_lora::data
