#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace clip_lora::cli {

/// 12345 → "12,345".
std::string with_commas(std::int64_t number);

/// 0.21349 → "0.213" with three decimals.
std::string fixed(double value, int decimals);

/// 0.0002 → "2.00e-04".
std::string scientific(double value);

/// 47.716 → "47.72 %".
std::string percent(double value);

/// 75.2 → "1 min 15 s", 12.34 → "12.3 s".
std::string duration(double seconds);

constexpr double kBytesPerGib = 1024.0 * 1024.0 * 1024.0;

/// 5320 images in one second → "5,320 images/s".
std::string images_per_second(std::int64_t images, double seconds);

/// `text` for a terminal: control characters become '?'.
std::string printable(const std::string& text);

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// A bar that is redrawn on the standard error stream where that is a terminal, and a plain line every few
/// seconds elsewhere. The bar disappears when the object goes.
class ProgressBar {
 public:
  /// `enabled` false: draws nothing.
  ProgressBar(std::string label, std::string unit, std::int64_t total, bool enabled);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  /// `done` of the total are done. `detail` is called only if something is drawn now.
  void update(std::int64_t done, const std::function<std::string()>& detail);
  /// Takes the bar off the terminal until the next update, for a line of output.
  void clear();

 private:
  void draw(std::int64_t done, const std::string& detail);

  std::string label_;
  std::string unit_;
  std::int64_t total_;
  bool enabled_;
  bool terminal_;
  bool drawn_ = false;
  double next_draw_seconds_ = 0.0;
  Stopwatch stopwatch_;
};

}  // namespace clip_lora::cli
