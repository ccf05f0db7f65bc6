#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>

#include "clip_lora/data/shapes_drawing.hpp"

namespace clip_lora::data {
namespace {

using std::numbers::pi;
using Polygon = std::vector<Point>;

Point operator-(Point a, Point b) { return {a.x - b.x, a.y - b.y}; }
double dot(Point a, Point b) { return a.x * b.x + a.y * b.y; }
double length(Point a) { return std::sqrt(dot(a, a)); }

double segment_distance(Point p, Point begin, Point end) {
  const Point along = end - begin;
  const Point from_begin = p - begin;
  const double t = std::clamp(dot(from_begin, along) / dot(along, along), 0.0, 1.0);
  return length({from_begin.x - t * along.x, from_begin.y - t * along.y});
}

/// Whether a ray from p to the right crosses the edge: an odd count over all edges means that p is inside.
bool ray_crosses(Point p, Point begin, Point end) {
  if ((begin.y > p.y) == (end.y > p.y)) return false;
  return p.x < begin.x + (end.x - begin.x) * (p.y - begin.y) / (end.y - begin.y);
}

double polygon_distance(Point p, const Polygon& corners) {
  double nearest = std::numeric_limits<double>::infinity();
  bool inside = false;
  for (std::size_t i = 0; i < corners.size(); ++i) {
    const Point begin = corners[i];
    const Point end = corners[(i + 1) % corners.size()];
    nearest = std::min(nearest, segment_distance(p, begin, end));
    inside ^= ray_crosses(p, begin, end);
  }
  return inside ? -nearest : nearest;
}

double polyline_distance(Point p, const Polygon& corners, double half_width) {
  double nearest = std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i + 1 < corners.size(); ++i) {
    nearest = std::min(nearest, segment_distance(p, corners[i], corners[i + 1]));
  }
  return nearest - half_width;
}

double box_distance(Point p, double half_width, double half_height) {
  const Point outside{std::abs(p.x) - half_width, std::abs(p.y) - half_height};
  return length({std::max(outside.x, 0.0), std::max(outside.y, 0.0)}) +
         std::min(std::max(outside.x, outside.y), 0.0);
}

double disc_distance(Point p, Point centre, double radius) { return length(p - centre) - radius; }

/// Scaled to a circle and back: a bound of the distance, good enough near the outline.
double ellipse_distance(Point p, Point centre, double radius_x, double radius_y) {
  const Point q = p - centre;
  return (length({q.x / radius_x, q.y / radius_y}) - 1.0) * std::min(radius_x, radius_y);
}

double circle(Point p) { return disc_distance(p, {}, 0.88); }

double ring(Point p) { return std::abs(length(p) - 0.70) - 0.20; }

double square(Point p) { return box_distance(p, 0.76, 0.76); }

double triangle(Point p) {
  static const Polygon corners = {{0.0, -0.92}, {0.95, 0.72}, {-0.95, 0.72}};
  return polygon_distance(p, corners);
}

double star(Point p) {
  static const Polygon corners = [] {
    Polygon result;
    for (int i = 0; i < 10; ++i) {
      const double radius = i % 2 == 0 ? 1.0 : 0.42;
      result.push_back({radius * std::sin(i * pi / 5), -radius * std::cos(i * pi / 5)});
    }
    return result;
  }();
  return polygon_distance(p, corners);
}

double cross(Point p) { return std::min(box_distance(p, 0.90, 0.27), box_distance(p, 0.27, 0.90)); }

double moon(Point p) {
  return std::max(disc_distance(p, {-0.05, 0.0}, 0.92), -disc_distance(p, {0.40, -0.12}, 0.74));
}

double heart(Point p) {
  static const Polygon corners = [] {  // the classical curve of sin³ and a short Fourier series
    constexpr int kCorners = 40;
    Polygon result;
    for (int i = 0; i < kCorners; ++i) {
      const double t = 2 * pi * i / kCorners;
      const double y = 13 * std::cos(t) - 5 * std::cos(2 * t) - 2 * std::cos(3 * t) - std::cos(4 * t);
      result.push_back({0.94 * std::pow(std::sin(t), 3), -y / 17.0 - 0.10});
    }
    return result;
  }();
  return polygon_distance(p, corners);
}

double arrow(Point p) {
  static const Polygon corners = {{0.98, 0.0},   {0.22, -0.72}, {0.22, -0.27}, {-0.95, -0.27},
                                  {-0.95, 0.27}, {0.22, 0.27},  {0.22, 0.72}};
  return polygon_distance(p, corners);
}

double spiral(Point p) {
  constexpr double kPitch = 0.40;  // between two turns
  constexpr double kTurns = 2.3;
  constexpr double kHalfWidth = 0.10;
  const double turn = std::atan2(p.y, p.x) / (2 * pi) + 0.5;
  const double nearest_turn = std::round(length(p) / kPitch - turn);
  double nearest = std::numeric_limits<double>::infinity();
  for (const double candidate : {nearest_turn - 1, nearest_turn, nearest_turn + 1}) {
    const double turns = std::clamp(candidate + turn, 0.0, kTurns);
    const double angle = 2 * pi * (turns - 0.5);
    nearest = std::min(nearest,
                       length(p - Point{kPitch * turns * std::cos(angle), kPitch * turns * std::sin(angle)}));
  }
  return nearest - kHalfWidth;
}

double zigzag(Point p) {
  static const Polygon corners = {{-0.88, 0.45}, {-0.44, -0.45}, {0.0, 0.45}, {0.44, -0.45}, {0.88, 0.45}};
  return polyline_distance(p, corners, 0.15);
}

double flower(Point p) {
  double petals = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 6; ++i) {
    petals =
        std::min(petals, disc_distance(p, {0.60 * std::sin(i * pi / 3), -0.60 * std::cos(i * pi / 3)}, 0.31));
  }
  return std::max(std::min(petals, disc_distance(p, {}, 0.5)), -disc_distance(p, {}, 0.24));
}

double house(Point p) {
  static const Polygon outline = {{0.0, -0.92},  {0.95, -0.12},  {0.68, -0.12}, {0.68, 0.80},
                                  {-0.68, 0.80}, {-0.68, -0.12}, {-0.95, -0.12}};
  const double door = box_distance(p - Point{0.0, 0.56}, 0.19, 0.30);
  return std::max(polygon_distance(p, outline), -door);
}

double fish(Point p) {
  static const Polygon tail = {{-0.42, 0.0}, {-0.98, -0.48}, {-0.82, 0.0}, {-0.98, 0.48}};
  const double body = ellipse_distance(p, {0.22, 0.0}, 0.74, 0.46);
  const double eye = disc_distance(p, {0.56, -0.11}, 0.10);
  return std::max(std::min(body, polygon_distance(p, tail)), -eye);
}

double tree(Point p) {
  static const Polygon crown = {{0.0, -0.98},  {0.46, -0.36},  {0.26, -0.36}, {0.66, 0.16},
                                {0.40, 0.16},  {0.84, 0.62},   {-0.84, 0.62}, {-0.40, 0.16},
                                {-0.66, 0.16}, {-0.26, -0.36}, {-0.46, -0.36}};
  return std::min(polygon_distance(p, crown), box_distance(p - Point{0.0, 0.78}, 0.14, 0.20));
}

double mushroom(Point p) {
  const double cap = std::max(ellipse_distance(p, {0.0, 0.08}, 0.92, 0.92), p.y - 0.08);
  const double stem = box_distance(p - Point{0.0, 0.45}, 0.24, 0.42);
  return std::min(cap, stem);
}

struct Shape {
  const char* name;
  double (*distance)(Point);
};

constexpr std::array<Shape, 16> kShapes = {{{"circle", circle},
                                            {"ring", ring},
                                            {"square", square},
                                            {"triangle", triangle},
                                            {"star", star},
                                            {"cross", cross},
                                            {"moon", moon},
                                            {"heart", heart},
                                            {"arrow", arrow},
                                            {"spiral", spiral},
                                            {"zigzag", zigzag},
                                            {"flower", flower},
                                            {"house", house},
                                            {"fish", fish},
                                            {"tree", tree},
                                            {"mushroom", mushroom}}};

}  // namespace

const std::vector<std::string>& shape_class_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const Shape& shape : kShapes) result.emplace_back(shape.name);
    return result;
  }();
  return names;
}

double shape_distance(int label, Point point) {
  return kShapes.at(static_cast<std::size_t>(label)).distance(point);
}

}  // namespace clip_lora::data
