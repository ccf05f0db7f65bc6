#include <algorithm>
#include <cmath>

#include "chart.hpp"
#include "clip_lora/cli/console.hpp"
#include "markup.hpp"

namespace clip_lora::cli {
namespace {

constexpr int kWidth = 340;  // px of 11 px text
constexpr double kBarLeft = 4, kBarRight = 40,
                 kBarBottom = 34;  // margins around the plot; values stand on the right
constexpr double kNameHeight = 17, kBarHeight = 10, kBarPitch = 13, kGap = 7;
constexpr int kBarTicks = 5;
constexpr std::size_t kLongestLabel = 44;  // bytes

/// The end of the axis: a round number from `longest` on, or `highest`.
double end_of_axis(double longest, double highest) {
  return std::min(highest, round_ticks(0.0, std::max(longest, 1.0), kBarTicks).back());
}

/// The beginning of a name that would leave the chart; no character is cut in two.
std::string shortened(const std::string& name) {
  if (name.size() <= kLongestLabel) return name;
  std::size_t end = kLongestLabel;
  while (end > 0 && (static_cast<unsigned char>(name[end]) & 0xC0U) == 0x80U) --end;
  return name.substr(0, end) + "…";
}

std::string text_at(double x, double y, const char* css, const std::string& words) {
  return "<text x=\"" + px(x) + "\" y=\"" + px(y) + "\" class=\"" + css + "\">" + escaped(words) + "</text>";
}

/// The bars of a chart on their axis, from 0 to `end_`.
class BarDrawing {
 public:
  explicit BarDrawing(const BarChart& chart) : chart_(chart) {
    double longest = 0.0;
    height_ = kBarBottom;
    for (const auto& group : chart.groups) {
      height_ += kNameHeight + kBarPitch * static_cast<double>(group.bars.size()) + kGap;
      for (const auto& bar : group.bars) longest = std::max(longest, bar.value + bar.deviation.value_or(0.0));
    }
    end_ = end_of_axis(longest, chart.highest);
  }

  std::string draw() const {
    std::string svg = chart_beginning(kWidth, static_cast<int>(std::ceil(height_)), chart_.label,
                                      {{"data-x-high", exact(end_)}});
    draw_axis(svg);
    double top = 0.0;
    for (const auto& group : chart_.groups) {
      svg += text_at(kBarLeft, top + 12, "t-name", shortened(group.name));
      top += kNameHeight;
      for (const auto& bar : group.bars) {
        draw_bar(svg, bar, top);
        top += kBarPitch;
      }
      top += kGap;
    }
    return svg + "</svg>";
  }

 private:
  double x(double value) const {
    return kBarLeft + std::clamp(value, 0.0, end_) / end_ * (kWidth - kBarLeft - kBarRight);
  }

  void draw_axis(std::string& svg) const {
    const double bottom = height_ - kBarBottom;
    std::string grid;
    for (const double tick : round_ticks(0.0, end_, kBarTicks)) {
      if (tick > end_) break;
      grid += "M" + px(x(tick)) + " 0V" + px(bottom);
      svg += text_at(tick == 0.0 ? kBarLeft : x(tick), bottom + 14, tick == 0.0 ? "t-start" : "t-mid",
                     fixed(tick, 0));
    }
    svg += "<path class=\"grid\" d=\"" + grid + "\"/>";
    svg += text_at((kBarLeft + kWidth - kBarRight) / 2, height_ - 4, "t-title t-mid", chart_.x_title);
  }

  void draw_bar(std::string& svg, const ChartBar& bar, double top) const {
    const double middle = top + kBarHeight / 2;
    svg += "<g" + attributes({{"class", std::string(bar.filled ? "bar " : "bar empty ") + bar.style}}) +
           "><rect x=\"" + px(kBarLeft) + "\" y=\"" + px(top) + "\" width=\"" + px(x(bar.value) - kBarLeft) +
           "\" height=\"" + px(kBarHeight) + "\"" + bar.attributes + "><title>" + escaped(bar.title) +
           "</title></rect>";
    double end = bar.value;
    if (bar.deviation && *bar.deviation > 0.0) {
      end += *bar.deviation;
      svg += "<path class=\"bars\" d=\"M" + px(x(bar.value - *bar.deviation)) + " " + px(middle) + "H" +
             px(x(end)) + "\"/>";
    }
    svg += "</g>" + text_at(x(end) + 4, top + 9, "t-value", fixed(bar.value, 1));
  }

  const BarChart& chart_;
  double height_ = 0.0;
  double end_ = 1.0;
};

}  // namespace

std::string draw_bars(const BarChart& chart) {
  const bool has_bars = std::any_of(chart.groups.begin(), chart.groups.end(),
                                    [](const auto& group) { return !group.bars.empty(); });
  return has_bars ? BarDrawing(chart).draw() : "";
}

}  // namespace clip_lora::cli
