#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "clip_lora/cli/image_inputs.hpp"
#include "clip_lora/core/worker_pool.hpp"
#include "clip_lora/image/preprocess.hpp"

namespace clip_lora::cli {

/// Pictures at the evaluation view.
struct PictureBatch {
  std::vector<std::string> paths;
  at::Tensor pixels;  ///< [B, R, R, 3] uint8 on the CPU, B ≥ 1
};

/// Reads and decodes pictures ahead of the caller, in the order of their names, in memory that does not
/// depend on their number.
class PictureReader {
 public:
  /// `on_skip` is told why a picture could not be read, from within next(). batch_size and workers ≥ 1.
  PictureReader(ImageInputs& inputs, const image::Preprocessing& preprocessing, std::int64_t batch_size,
                int workers, std::function<void(const std::string& reason)> on_skip);

  /// The next up to batch_size pictures that can be read, fewer where standard input keeps the rest waiting;
  /// nothing at the end. Throws as ImageInputs, and Interrupted once a signal is pending.
  std::optional<PictureBatch> next();

 private:
  /// A picture that a worker is reading.
  struct Pending {
    std::string path;
    image::Image view;
    std::string failure;  // why there is no view
    std::future<void> done;
  };

  NextName begin_one(std::chrono::milliseconds patience);
  void begin_what_is_there();
  std::optional<image::Image> finish_first();

  ImageInputs& inputs_;
  image::Preprocessing preprocessing_;
  std::size_t batch_size_;
  std::size_t most_pending_;
  std::function<void(const std::string&)> on_skip_;
  std::deque<Pending> pending_;  // elements stay where they are while others come and go at the ends
  bool ended_ = false;
  WorkerPool pool_;  // last: it must be gone before what its tasks write to
};

}  // namespace clip_lora::cli
