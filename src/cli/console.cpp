#include "clip_lora/cli/console.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iostream>

namespace clip_lora::cli {
namespace {

constexpr int kBarCells = 28;
constexpr double kTerminalPeriod = 0.1;  // seconds between two drawings
constexpr double kPlainPeriod = 5.0;

std::string repeated(const std::string& cell, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += cell;
  return text;
}

}  // namespace

std::string with_commas(std::int64_t number) {
  std::string digits = std::to_string(number);
  const std::size_t first = digits.starts_with('-') ? 1 : 0;
  for (std::size_t place = digits.size(); place > first + 3; place -= 3) digits.insert(place - 3, 1, ',');
  return digits;
}

std::string fixed(double value, int decimals) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

std::string scientific(double value) {
  char text[64];
  std::snprintf(text, sizeof text, "%.2e", value);
  return text;
}

std::string percent(double value) { return fixed(value, 2) + " %"; }

std::string duration(double seconds) {
  if (seconds < 60.0) return fixed(seconds, 1) + " s";
  const auto whole = static_cast<std::int64_t>(seconds);
  if (whole < 3600) return std::to_string(whole / 60) + " min " + std::to_string(whole % 60) + " s";
  return std::to_string(whole / 3600) + " h " + std::to_string(whole % 3600 / 60) + " min";
}

std::string printable(const std::string& text) {
  std::string result = text;
  for (char& character : result) {
    const auto code = static_cast<unsigned char>(character);
    if (code < 0x20 || code == 0x7F) character = '?';
  }
  return result;
}

std::string images_per_second(std::int64_t images, double seconds) {
  return with_commas(std::llround(static_cast<double>(images) / std::max(seconds, 1e-9))) + " images/s";
}

ProgressBar::ProgressBar(std::string label, std::string unit, std::int64_t total, bool enabled)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      total_(total),
      enabled_(enabled),
      terminal_(::isatty(STDERR_FILENO) != 0),
      next_draw_seconds_(terminal_ ? 0.0 : kPlainPeriod) {}

ProgressBar::~ProgressBar() { clear(); }

void ProgressBar::clear() {
  if (drawn_ && terminal_) std::cerr << "\r\033[K" << std::flush;
  drawn_ = false;
}

void ProgressBar::update(std::int64_t done, const std::function<std::string()>& detail) {
  if (!enabled_ || stopwatch_.seconds() < next_draw_seconds_) return;
  draw(done, detail());
  next_draw_seconds_ = stopwatch_.seconds() + (terminal_ ? kTerminalPeriod : kPlainPeriod);
}

void ProgressBar::draw(std::int64_t done, const std::string& detail) {
  const double fraction = static_cast<double>(done) / static_cast<double>(std::max<std::int64_t>(1, total_));
  std::string line = label_ + "  ";
  if (terminal_) {
    const int filled = static_cast<int>(fraction * kBarCells);
    line = "\r" + line + repeated("━", filled) + repeated("╌", kBarCells - filled) + "  ";
  }
  line += with_commas(done) + " / " + with_commas(total_) + " " + unit_ + "  " + detail;
  if (done > 0) line += "  " + duration(stopwatch_.seconds() / fraction * (1.0 - fraction)) + " left";
  std::cerr << line << (terminal_ ? "\033[K" : "\n") << std::flush;
  drawn_ = true;
}

}  // namespace clip_lora::cli
