#pragma once

#include <optional>
#include <string>
#include <vector>

namespace clip_lora::cli {

/// A point of a line.
struct ChartPoint {
  double x = 0.0;
  double y = 0.0;
  std::optional<double> deviation;  ///< drawn as a bar up and down
  bool after_gap = false;           ///< the line is interrupted before it
  std::string title;                ///< shown where the pointer rests on its mark
  std::string attributes;           ///< of its mark, as markup's attributes() makes them
};

enum class LineKind {
  kMarked,     ///< solid, with a mark at each point
  kPlain,      ///< thin and solid, without marks
  kDashed,     ///< without marks
  kPublished,  ///< dotted, with hollow marks
};

struct ChartLine {
  LineKind kind = LineKind::kMarked;
  std::string style;  ///< class of its colour in report.css: "s0" … "s5", "q0" … "q4"
  int mark = 0;       ///< 0 circle, 1 square, 2 triangle, 3 diamond, 4 triangle downwards, 5 star; then again
  std::string label;  ///< for screen readers
  std::vector<ChartPoint> points;
};

struct ChartTick {
  double position = 0.0;
  std::string label;
};

struct Chart {
  std::string label;  ///< what the chart shows, for screen readers
  std::string x_title;
  std::string y_title;
  std::vector<ChartTick> x_ticks;  ///< empty: round numbers from 0
  std::vector<ChartLine> lines;
  double lowest = -1e300;  ///< what y cannot be below
  double highest = 1e300;
  int width = 340;  ///< in px of 11 px text
  int height = 232;
};

/// An <svg> of `chart`; "" if no line has a point. Labels that would touch are left out, but for the first
/// and last.
std::string draw(const Chart& chart);

/// Round numbers from at most `low` to at least `high`, about `count`.
std::vector<double> round_ticks(double low, double high, int count);

/// A short line and mark as in a chart, for legends.
std::string draw_key(LineKind kind, const std::string& style, int mark);

}  // namespace clip_lora::cli
