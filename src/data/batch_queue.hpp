#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <vector>

#include "clip_lora/core/worker_pool.hpp"
#include "clip_lora/data/loader.hpp"

namespace clip_lora::data {

/// Batches in the making: a pool of threads fills their rows, and the caller takes the batches in the order
/// in which they were begun.
class BatchQueue {
 public:
  /// Writes picture `row` of a batch to `pixels` [R, R, 3]. Called by the pool's threads, several at once.
  using WriteRow = std::function<void(std::size_t row, std::uint8_t* pixels)>;

  /// batch_size and workers ≥ 1.
  BatchQueue(int batch_size, int workers);

  /// Whether another batch should be begun, so that no thread runs out of work while the caller waits for the
  /// oldest one.
  bool wants_more() const { return pictures_ < wanted_pictures_; }

  /// Begins `batch`, whose pixels are still to be written.
  void begin(Batch batch, const WriteRow& write_row);

  /// The oldest batch, once it is whole. Throws what write_row threw for it. Not for an empty queue.
  Batch take();

  bool empty() const { return in_work_.empty(); }

 private:
  struct InWork {
    Batch batch;
    std::vector<std::future<void>> tasks;  // of some rows each
  };

  std::size_t wanted_pictures_;
  std::size_t pictures_ = 0;  // begun and not taken; a batch without any counts for one
  std::deque<InWork> in_work_;
  WorkerPool pool_;
};

/// [B] int64.
at::Tensor label_tensor(const std::vector<int>& labels);

/// Pixels for a batch of `count` square pictures, not filled; `pinned`: in page-locked memory.
at::Tensor empty_pixels(std::size_t count, int size_px, bool pinned = false);

}  // namespace clip_lora::data
