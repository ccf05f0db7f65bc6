#pragma once

namespace clip_lora::image {

/// While one lives, what its thread prints to C's `stderr` goes nowhere: libjpeg and libpng have no off
/// switch that OpenCV passes on. Other threads print as ever. May be nested and used from many threads. Does
/// nothing where the C library does not let `stderr` be assigned, as glibc does.
class QuietStderr {
 public:
  QuietStderr();
  ~QuietStderr();
  QuietStderr(const QuietStderr&) = delete;
  QuietStderr& operator=(const QuietStderr&) = delete;
};

}  // namespace clip_lora::image
