#pragma once

#include <optional>
#include <string>
#include <utility>
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
  kHollow,     ///< dashed, with hollow marks
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

/// A bar from 0 to `value`.
struct ChartBar {
  std::string style;                ///< class of its colour, as of a ChartLine
  bool filled = true;               ///< else only its outline is drawn
  double value = 0.0;               ///< at least 0
  std::optional<double> deviation;  ///< drawn as a whisker
  std::string title;                ///< shown where the pointer rests on it
  std::string attributes;           ///< as of a ChartPoint
};

/// Horizontal bars in groups under each other, each group under its name.
struct BarChart {
  struct Group {
    std::string name;
    std::vector<ChartBar> bars;
  };
  std::string label;  ///< what the chart shows, for screen readers
  std::string x_title;
  std::vector<Group> groups;
  double highest = 1e300;  ///< what x cannot be above
};

/// An <svg> of `chart`; "" if there are no bars. Each bar has its value, with one decimal, beside it.
std::string draw_bars(const BarChart& chart);

/// `attributes` of an <svg> of `width` by `height` px and what it shows, up to and with the '>'.
std::string chart_beginning(int width, int height, const std::string& label,
                            const std::vector<std::pair<std::string, std::string>>& attributes);

/// Tenths of a px are fine enough and keep the page small.
std::string px(double value);

/// An <svg> of `chart`; "" if no line has a point. Labels that would touch are left out, but for the first
/// and last.
std::string draw(const Chart& chart);

/// Round numbers from at most `low` to at least `high`, about `count`.
std::vector<double> round_ticks(double low, double high, int count);

/// A short line and mark as in a chart, for legends.
std::string draw_key(LineKind kind, const std::string& style, int mark);

}  // namespace clip_lora::cli
