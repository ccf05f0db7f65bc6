#include "chart.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "clip_lora/cli/console.hpp"
#include "markup.hpp"

namespace clip_lora::cli {
namespace {

constexpr double kLeft = 40, kRight = 14, kTop = 24, kBottom = 38;  // margins around the plot
constexpr double kLetterWidth = 6.4;                                // of 11 px text, rather wide
constexpr double kMarkRadius = 3.2;
constexpr int kTicks = 5;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  /// Widened where it is a single value.
  Range opened() const {
    if (low < high) return *this;
    const double margin = std::max(0.5, std::abs(low) * 0.02);
    return {low - margin, high + margin};
  }
};

/// Where values come to lie.
struct Scale {
  Range values;
  double begin = 0.0;  // px of values.low
  double end = 0.0;    // px of values.high

  double operator()(double value) const {
    return begin + (value - values.low) / (values.high - values.low) * (end - begin);
  }
};

/// "70", or "0.25" where the steps are small.
std::string tick_label(double value, double step) {
  const int decimals = step >= 1.0 ? 0 : static_cast<int>(std::ceil(-std::log10(step) - 1e-9));
  return fixed(value == 0.0 ? 0.0 : value, decimals);
}

std::vector<ChartTick> labelled(const std::vector<double>& positions) {
  std::vector<ChartTick> ticks;
  const double step = positions.size() > 1 ? positions[1] - positions[0] : 1.0;
  for (const double position : positions) ticks.push_back({position, tick_label(position, step)});
  return ticks;
}

/// The shape of a mark around (x, y).
std::string mark_shape(int mark, double x, double y, double r) {
  const auto polygon = [&](const std::vector<std::array<double, 2>>& corners) {
    std::string points;
    for (const auto& [dx, dy] : corners)
      points += (points.empty() ? "" : " ") + px(x + dx * r) + "," + px(y + dy * r);
    return "<polygon points=\"" + points + "\"";
  };
  switch (mark % 6) {
    case 1:
      return "<rect x=\"" + px(x - r * 0.9) + "\" y=\"" + px(y - r * 0.9) + "\" width=\"" + px(r * 1.8) +
             "\" height=\"" + px(r * 1.8) + "\"";
    case 2:
      return polygon({{0, -1.25}, {1.15, 0.85}, {-1.15, 0.85}});
    case 3:
      return polygon({{0, -1.35}, {1.35, 0}, {0, 1.35}, {-1.35, 0}});
    case 4:
      return polygon({{0, 1.25}, {1.15, -0.85}, {-1.15, -0.85}});
    case 5:
      return polygon(
          {{0, -1.4}, {0.4, -0.4}, {1.4, 0}, {0.4, 0.4}, {0, 1.4}, {-0.4, 0.4}, {-1.4, 0}, {-0.4, -0.4}});
    default:
      return "<circle cx=\"" + px(x) + "\" cy=\"" + px(y) + "\" r=\"" + px(r) + "\"";
  }
}

const char* css_class(LineKind kind) {
  switch (kind) {
    case LineKind::kPlain:
      return "plain";
    case LineKind::kDashed:
      return "dashed";
    case LineKind::kPublished:
      return "published";
    case LineKind::kHollow:
      return "hollow";
    default:
      return "marked";
  }
}

bool has_marks(LineKind kind) { return kind != LineKind::kPlain && kind != LineKind::kDashed; }

/// One chart in the making.
class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    Range x, y;
    for (const auto& line : chart.lines) {
      for (const auto& point : line.points) {
        x.include(point.x);
        y.include(point.y - point.deviation.value_or(0.0));
        y.include(point.y + point.deviation.value_or(0.0));
      }
    }
    for (const auto& tick : chart.x_ticks) x.include(tick.position);
    if (chart.x_ticks.empty()) x.include(0.0);
    empty_ = !(y.low <= y.high);
    if (empty_) return;
    y = y.opened();
    const auto y_positions =
        round_ticks(std::max(y.low, chart.lowest), std::min(y.high, chart.highest), kTicks);
    y_ticks_ = labelled(y_positions);
    y_ = {{y_positions.front(), y_positions.back()}, chart.height - kBottom, kTop};
    // Marks at the ends stay clear of the frame.
    const double inset = chart.x_ticks.empty() ? 0.0 : 12.0;
    x_ = {x.opened(), kLeft + inset, chart.width - kRight - inset};
    x_ticks_ = chart.x_ticks.empty() ? labelled(round_ticks_within(x_.values)) : chart.x_ticks;
  }

  std::string draw() const {
    if (empty_) return "";
    std::string svg =
        chart_beginning(chart_.width, chart_.height, chart_.label,
                        {{"data-y-low", exact(y_.values.low)}, {"data-y-high", exact(y_.values.high)}});
    draw_axes(svg);
    for (const auto& line : chart_.lines) draw_line(svg, line);
    return svg + "</svg>";
  }

 private:
  static std::vector<double> round_ticks_within(const Range& range) {
    auto ticks = round_ticks(range.low, range.high, kTicks);
    std::erase_if(ticks, [&](double tick) { return tick < range.low - 1e-9 || tick > range.high + 1e-9; });
    return ticks;
  }

  static void text(std::string& svg, double x, double y, const char* css, const std::string& words) {
    svg +=
        "<text x=\"" + px(x) + "\" y=\"" + px(y) + "\" class=\"" + css + "\">" + escaped(words) + "</text>";
  }

  void draw_axes(std::string& svg) const {
    const double bottom = y_.begin, right = chart_.width - kRight;
    std::string grid;
    for (const auto& tick : y_ticks_) {
      grid += "M" + px(kLeft) + " " + px(y_(tick.position)) + "H" + px(right);
      text(svg, kLeft - 6, y_(tick.position) + 4, "t-end", tick.label);
    }
    svg += "<path class=\"grid\" d=\"" + grid + "\"/>";
    svg += "<path class=\"axis\" d=\"M" + px(kLeft) + " " + px(bottom) + "H" + px(right) + "\"/>";
    draw_x_labels(svg, bottom);
    text(svg, 2, 11, "t-title", chart_.y_title);
    text(svg, (kLeft + right) / 2, chart_.height - 4, "t-title t-mid", chart_.x_title);
  }

  /// From both ends inwards, so that these stay where some have to go.
  void draw_x_labels(std::string& svg, double bottom) const {
    std::vector<Range> taken;
    std::vector<const ChartTick*> order;
    for (const auto& tick : x_ticks_) order.push_back(&tick);
    if (order.size() > 2) std::rotate(order.begin() + 1, order.end() - 1, order.end());
    std::string marks;
    for (const ChartTick* tick : order) {
      const double at = x_(tick->position);
      const double half = static_cast<double>(tick->label.size()) * kLetterWidth / 2 + 2;
      marks += "M" + px(at) + " " + px(bottom) + "v4";
      const bool is_free = std::none_of(taken.begin(), taken.end(), [&](const Range& other) {
        return at - half < other.high && other.low < at + half;
      });
      if (!is_free) continue;
      taken.push_back({at - half, at + half});
      text(svg, at, bottom + 16, "t-mid", tick->label);
    }
    svg += "<path class=\"axis\" d=\"" + marks + "\"/>";
  }

  void draw_line(std::string& svg, const ChartLine& line) const {
    if (line.points.empty()) return;
    svg += "<g" + attributes({{"class", std::string(css_class(line.kind)) + " " + line.style}}) + ">";
    std::string path, bars;
    for (const auto& point : line.points) {
      const double x = x_(point.x);
      path += (path.empty() || point.after_gap ? "M" : "L") + px(x) + " " + px(y_(point.y));
      if (!point.deviation || *point.deviation <= 0.0) continue;
      const double low = std::clamp(point.y - *point.deviation, y_.values.low, y_.values.high);
      const double high = std::clamp(point.y + *point.deviation, y_.values.low, y_.values.high);
      bars += "M" + px(x) + " " + px(y_(low)) + "V" + px(y_(high)) + "M" + px(x - 3) + " " + px(y_(low)) +
              "h6M" + px(x - 3) + " " + px(y_(high)) + "h6";
    }
    svg += "<path class=\"line\" d=\"" + path + "\"/>";
    if (!bars.empty()) svg += "<path class=\"bars\" d=\"" + bars + "\"/>";
    for (const auto& point : line.points) {
      if (!has_marks(line.kind)) break;
      svg += mark_shape(line.mark, x_(point.x), y_(point.y), kMarkRadius) + point.attributes + "><title>" +
             escaped(point.title) + "</title></" + mark_element(line.mark) + ">";
    }
    svg += "</g>";
  }

  static std::string mark_element(int mark) {
    return mark % 6 == 0 ? "circle" : mark % 6 == 1 ? "rect" : "polygon";
  }

  const Chart& chart_;
  bool empty_ = true;
  Scale x_, y_;
  std::vector<ChartTick> x_ticks_, y_ticks_;
};

}  // namespace

std::vector<double> round_ticks(double low, double high, int count) {
  const double rough = (high - low) / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10.0 * power;
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) {
      step = factor * power;
      break;
    }
  }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9), last = std::ceil(high / step - 1e-9);
  for (double tick = first; tick <= last; tick += 1.0) ticks.push_back(tick * step);
  return ticks;
}

std::string px(double value) {
  std::string text = fixed(value, 1);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text;
}

std::string chart_beginning(int width, int height, const std::string& label,
                            const std::vector<std::pair<std::string, std::string>>& further) {
  return "<svg" +
         attributes({{"viewBox", "0 0 " + std::to_string(width) + " " + std::to_string(height)},
                     {"role", "img"},
                     {"aria-label", label},
                     {"class", "chart"}}) +
         attributes(further) + ">";
}

std::string draw(const Chart& chart) { return Drawing(chart).draw(); }

std::string draw_key(LineKind kind, const std::string& style, int mark) {
  std::string svg = "<svg class=\"key\" viewBox=\"0 0 26 12\" aria-hidden=\"true\"><g class=\"" +
                    std::string(css_class(kind)) + " " + style + "\"><path class=\"line\" d=\"M1 6H25\"/>";
  if (has_marks(kind)) svg += mark_shape(mark, 13, 6, kMarkRadius) + "/>";
  return svg + "</g></svg>";
}

}  // namespace clip_lora::cli
