#include "clip_lora/data/shapes_drawing.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <utility>

namespace clip_lora::data {
namespace {

/// Red, green, blue in [0, 1].
using Colour = std::array<double, 3>;

struct NamedColour {
  const char* name;
  Colour colour;
};

/// Dark colours first, then the pale ones.
constexpr int kDarkColours = 8;
constexpr int kPaleColours = 5;
constexpr std::array<NamedColour, kDarkColours + kPaleColours> kColours = {{{"red", {0.80, 0.12, 0.14}},
                                                                            {"orange", {0.90, 0.42, 0.06}},
                                                                            {"green", {0.13, 0.52, 0.24}},
                                                                            {"blue", {0.12, 0.28, 0.72}},
                                                                            {"purple", {0.44, 0.16, 0.58}},
                                                                            {"pink", {0.86, 0.24, 0.52}},
                                                                            {"brown", {0.42, 0.25, 0.14}},
                                                                            {"black", {0.12, 0.12, 0.14}},
                                                                            {"white", {0.95, 0.95, 0.94}},
                                                                            {"cream", {0.97, 0.91, 0.74}},
                                                                            {"mint", {0.76, 0.93, 0.82}},
                                                                            {"sky", {0.74, 0.87, 0.97}},
                                                                            {"rose", {0.97, 0.82, 0.84}}}};

/// The share of pictures with a pale shape on dark paper.
constexpr double kPaleShapes = 0.35;

/// The false colours of thermal cameras, cold to hot: black, violet, magenta, orange, yellow, white.
constexpr std::array<Colour, 7> kIron = {{{0.01, 0.01, 0.08},
                                          {0.19, 0.03, 0.47},
                                          {0.55, 0.06, 0.60},
                                          {0.86, 0.25, 0.36},
                                          {0.98, 0.55, 0.08},
                                          {1.00, 0.85, 0.28},
                                          {1.00, 1.00, 0.92}}};

/// In [0, 1), the same with every standard library (std::uniform_real_distribution is not).
double uniform(std::mt19937_64& generator) { return static_cast<double>(generator() >> 11) * 0x1p-53; }

double uniform(std::mt19937_64& generator, double low, double high) {
  return low + (high - low) * uniform(generator);
}

int uniform_below(std::mt19937_64& generator, int bound) {
  return static_cast<int>(uniform(generator) * bound);
}

/// Near a normal variable of standard deviation 1: the sum of four uniform ones.
double bell(std::mt19937_64& generator) {
  double sum = -2.0;
  for (int i = 0; i < 4; ++i) sum += uniform(generator);
  return sum * std::sqrt(3.0);
}

double mix(double a, double b, double t) { return a + (b - a) * t; }

Colour mix(const Colour& a, const Colour& b, double t) {
  return {mix(a[0], b[0], t), mix(a[1], b[1], t), mix(a[2], b[2], t)};
}

double smooth_step(double t) {
  t = std::clamp(t, 0.0, 1.0);
  return t * t * (3.0 - 2.0 * t);
}

/// A smooth random function of the picture's plane with values in [-1, 1]: a grid of random values,
/// interpolated.
class Clouds {
 public:
  Clouds(int cells, std::mt19937_64& generator) : cells_(cells) {
    for (int i = 0; i < (cells + 1) * (cells + 1); ++i) values_.push_back(uniform(generator, -1.0, 1.0));
  }

  /// x, y in [0, 1].
  double at(double x, double y) const {
    const int column = std::min(static_cast<int>(x * cells_), cells_ - 1);
    const int row = std::min(static_cast<int>(y * cells_), cells_ - 1);
    const double across = smooth_step(x * cells_ - column);
    return mix(mix(value(row, column), value(row, column + 1), across),
               mix(value(row + 1, column), value(row + 1, column + 1), across),
               smooth_step(y * cells_ - row));
  }

 private:
  double value(int row, int column) const {
    return values_[static_cast<std::size_t>(row) * static_cast<std::size_t>(cells_ + 1) +
                   static_cast<std::size_t>(column)];
  }

  int cells_;
  std::vector<double> values_;
};

/// Signed distance of a pixel's middle to the scene's outline, in units of the picture's side. x, y in [0,
/// 1].
double scene_distance(const ShapeScene& scene, double x, double y) {
  const double right = (x - 0.5 - scene.centre.x) / scene.radius;
  const double down = (y - 0.5 - scene.centre.y) / scene.radius;
  const double cosine = std::cos(scene.angle);
  const double sine = std::sin(scene.angle);
  return scene.radius *
         shape_distance(scene.label, {cosine * right + sine * down, cosine * down - sine * right});
}

/// The share of a pixel of side 1 / size_px that lies inside, for antialiased edges.
double coverage(double distance, int size_px) { return std::clamp(0.5 - distance * size_px, 0.0, 1.0); }

/// Fills an image by colour_at(x, y) with x, y in [0, 1] at the pixels' middles.
template <typename ColourAt>
image::Image paint(int size_px, const ColourAt& colour_at) {
  image::Image image{size_px, size_px, {}};
  image.rgb.reserve(static_cast<std::size_t>(size_px) * static_cast<std::size_t>(size_px) * 3);
  for (int row = 0; row < size_px; ++row) {
    for (int column = 0; column < size_px; ++column) {
      const Colour colour = colour_at((column + 0.5) / size_px, (row + 0.5) / size_px);
      for (const double channel : colour) {
        image.rgb.push_back(static_cast<std::uint8_t>(std::lround(std::clamp(channel, 0.0, 1.0) * 255.0)));
      }
    }
  }
  return image;
}

/// A shade of a named colour: no two reds are the same.
Colour shade_of(int colour, std::mt19937_64& generator) {
  Colour shade = kColours.at(static_cast<std::size_t>(colour)).colour;
  const double light = uniform(generator, -0.08, 0.08);
  for (double& channel : shade) channel += light + uniform(generator, -0.04, 0.04);
  return shade;
}

/// Poster paint on coloured paper: soft light from a side, a faint shadow, a little grain.
image::Image draw_paint(const ShapeScene& scene, int size_px, std::mt19937_64& generator) {
  const Colour shape = shade_of(scene.paint, generator);
  const Colour paper = shade_of(scene.paper, generator);
  const Clouds texture(5, generator);
  const double light_angle = uniform(generator, 0.0, 6.283);
  const Point light{0.20 * std::cos(light_angle), 0.20 * std::sin(light_angle)};
  const double shadow = uniform(generator, 0.0, 0.5);
  return paint(size_px, [&](double x, double y) {
    const double brightness = 1.0 + light.x * (x - 0.5) + light.y * (y - 0.5) + 0.06 * texture.at(x, y);
    const double shade = shadow * smooth_step(0.5 - scene_distance(scene, x - 0.02, y - 0.03) / 0.08);
    const double inside = coverage(scene_distance(scene, x, y), size_px);
    Colour colour = mix(mix(paper, {0.0, 0.0, 0.0}, shade), shape, inside);
    for (double& channel : colour) channel = channel * brightness + 0.015 * bell(generator);
    return colour;
  });
}

/// `heat` in [0, 1] as a false colour.
Colour iron_colour(double heat) {
  const double step = std::clamp(heat, 0.0, 1.0) * (kIron.size() - 1);
  const auto below = std::min(static_cast<std::size_t>(step), kIron.size() - 2);
  return mix(kIron[below], kIron[below + 1], step - static_cast<double>(below));
}

/// A warm body before a cool wall: blurred outlines, a halo, drifts of warmth, noise of the sensor's pixels
/// and of its columns.
image::Image draw_thermal(const ShapeScene& scene, int size_px, std::mt19937_64& generator) {
  const double wall = uniform(generator, 0.12, 0.34);
  const double contrast = uniform(generator, 0.36, 0.54);
  const double blur = uniform(generator, 0.02, 0.04);
  const Clouds drift(3, generator);
  const Clouds patches(9, generator);
  std::vector<double> column_noise;
  for (int i = 0; i < size_px; ++i) column_noise.push_back(0.025 * bell(generator));
  return paint(size_px, [&](double x, double y) {
    const double distance = scene_distance(scene, x, y);
    const double body = smooth_step(0.5 - distance / (2 * blur));
    const double halo = 0.35 * std::exp(-std::max(distance, 0.0) / 0.08) * (1.0 - body);
    const double warmth = wall + contrast * (body + halo) + 0.10 * drift.at(x, y) + 0.06 * patches.at(x, y);
    return iron_colour(warmth + column_noise[static_cast<std::size_t>(x * size_px)] + 0.04 * bell(generator));
  });
}

}  // namespace

const std::vector<std::string>& shape_colour_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const NamedColour& colour : kColours) result.emplace_back(colour.name);
    return result;
  }();
  return names;
}

ShapeScene random_shape_scene(int label, std::mt19937_64& generator) {
  ShapeScene scene;
  scene.label = label;
  scene.paint = uniform_below(generator, kDarkColours);
  scene.paper = kDarkColours + uniform_below(generator, kPaleColours);
  if (uniform(generator) < kPaleShapes) std::swap(scene.paint, scene.paper);
  scene.radius = uniform(generator, 0.33, 0.46);
  const double room = 0.5 - scene.radius;
  scene.centre = {uniform(generator, -room, room), uniform(generator, -room, room)};
  scene.angle = uniform(generator, -0.35, 0.35);
  return scene;
}

image::Image draw_shape(const ShapeScene& scene, ShapeLook look, int size_px, std::mt19937_64& generator) {
  return look == ShapeLook::kPaint ? draw_paint(scene, size_px, generator)
                                   : draw_thermal(scene, size_px, generator);
}

}  // namespace clip_lora::data
