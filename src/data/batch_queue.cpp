#include "batch_queue.hpp"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace clip_lora::data {
namespace {

/// The oldest batch, and behind it another one or two pictures for each thread, whatever is more.
std::size_t pictures_wanted(int batch_size, int workers) {
  TORCH_CHECK(batch_size >= 1 && workers >= 1, "batch_size and workers must be at least 1, got ", batch_size,
              " and ", workers);
  return static_cast<std::size_t>(batch_size) + static_cast<std::size_t>(std::max(batch_size, 2 * workers));
}

/// Small pictures would otherwise cost less than handing them out. Eight tasks per thread even out what
/// single pictures take.
std::size_t rows_of_a_task(std::size_t rows, int workers) {
  return std::max<std::size_t>(1, rows / (8 * static_cast<std::size_t>(workers)));
}

}  // namespace

BatchQueue::BatchQueue(int batch_size, int workers)
    : wanted_pictures_(pictures_wanted(batch_size, workers)), pool_(workers) {}

void BatchQueue::begin(Batch batch, const WriteRow& write_row) {
  const at::Tensor pixels = batch.pixels;
  const auto rows = static_cast<std::size_t>(pixels.size(0));
  InWork work{std::move(batch), {}};
  const auto shared_write_row = std::make_shared<const WriteRow>(write_row);
  const std::size_t step = rows_of_a_task(rows, pool_.workers());
  for (std::size_t first = 0; first < rows; first += step) {
    const std::size_t end = std::min(rows, first + step);
    // A task holds the tensor: after an error in one row the batch is given up while others are still being
    // written.
    work.tasks.push_back(pool_.submit([pixels, shared_write_row, first, end] {
      const auto picture_bytes = static_cast<std::size_t>(pixels.stride(0));
      for (std::size_t row = first; row < end; ++row) {
        (*shared_write_row)(row, pixels.data_ptr<std::uint8_t>() + row * picture_bytes);
      }
    }));
  }
  pictures_ += std::max<std::size_t>(rows, 1);
  in_work_.push_back(std::move(work));
}

Batch BatchQueue::take() {
  InWork oldest = std::move(in_work_.front());
  in_work_.pop_front();
  pictures_ -= static_cast<std::size_t>(std::max<std::int64_t>(oldest.batch.pixels.size(0), 1));
  for (auto& task : oldest.tasks) task.get();
  return oldest.batch;
}

at::Tensor label_tensor(const std::vector<int>& labels) {
  at::Tensor tensor = at::empty({static_cast<std::int64_t>(labels.size())}, at::kLong);
  std::ranges::copy(labels, tensor.data_ptr<std::int64_t>());
  return tensor;
}

at::Tensor empty_pixels(std::size_t count, int size_px, bool pinned) {
  return at::empty({static_cast<std::int64_t>(count), size_px, size_px, 3},
                   at::TensorOptions(at::kByte).pinned_memory(pinned));
}

}  // namespace clip_lora::data
