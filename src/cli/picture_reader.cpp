#include "picture_reader.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/interrupt.hpp"

namespace clip_lora::cli {
namespace {

using namespace std::chrono_literals;

/// How long pictures that are ready wait for others to join them.
constexpr auto kPatience = 200ms;

/// [B, R, R, 3] of views of R by R.
at::Tensor stacked(const std::vector<image::Image>& views) {
  const image::Image& first = views.front();
  at::Tensor pixels =
      at::empty({static_cast<std::int64_t>(views.size()), first.height, first.width, 3}, at::kByte);
  auto* row = pixels.mutable_data_ptr<std::uint8_t>();
  for (const auto& view : views) row = std::ranges::copy(view.rgb, row).out;
  return pixels;
}

}  // namespace

PictureReader::PictureReader(ImageInputs& inputs, const image::Preprocessing& preprocessing,
                             std::int64_t batch_size, int workers,
                             std::function<void(const std::string& reason)> on_skip)
    : inputs_(inputs),
      preprocessing_(preprocessing),
      batch_size_(static_cast<std::size_t>(batch_size)),
      most_pending_(2 * batch_size_ + static_cast<std::size_t>(workers)),
      on_skip_(std::move(on_skip)),
      pool_(workers) {}

/// Has a worker read the next picture, if its name comes in time.
NextName PictureReader::begin_one(std::chrono::milliseconds patience) {
  std::string path;
  const NextName next = inputs_.next(path, patience);
  if (next == NextName::kEnd) ended_ = true;
  if (next != NextName::kThere) return next;
  Pending& picture = pending_.emplace_back();
  picture.path = std::move(path);
  picture.done = pool_.submit([this, &picture] {
    try {
      picture.view = image::load_evaluation_view(picture.path, preprocessing_);
    } catch (const DataError& error) {
      picture.failure = error.what();
    }
  });
  return next;
}

void PictureReader::begin_what_is_there() {
  while (!ended_ && pending_.size() < most_pending_ && begin_one(0ms) == NextName::kThere) {
  }
}

/// The first of the pending pictures, or nothing if it had to be skipped.
std::optional<image::Image> PictureReader::finish_first() {
  Pending& first = pending_.front();
  first.done.get();
  if (first.failure.empty()) return std::move(first.view);
  on_skip_(first.failure);
  return std::nullopt;
}

std::optional<PictureBatch> PictureReader::next() {
  PictureBatch batch;
  std::vector<image::Image> views;
  while (views.size() < batch_size_) {
    if (const int signal = pending_interrupt()) throw Interrupted(signal, "interrupted");
    begin_what_is_there();
    if (pending_.empty()) {
      if (ended_) break;
      if (begin_one(kPatience) == NextName::kNotYet && !views.empty()) break;
      continue;
    }
    if (auto view = finish_first()) {
      views.push_back(std::move(*view));
      batch.paths.push_back(std::move(pending_.front().path));
    }
    pending_.pop_front();
  }
  begin_what_is_there();  // the workers go on while the caller looks at these
  if (views.empty()) return std::nullopt;
  batch.pixels = stacked(views);
  return batch;
}

}  // namespace clip_lora::cli
