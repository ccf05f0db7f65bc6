#include "training_order.hpp"

#include <c10/util/Exception.h>

#include <algorithm>
#include <numeric>
#include <utility>

namespace clip_lora::data {
namespace {

/// Fisher and Yates's shuffle; std::shuffle's order differs between standard libraries.
void shuffle(std::vector<std::size_t>& order, std::mt19937_64& generator) {
  for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[generator() % i]);
}

}  // namespace

TrainingOrder::TrainingOrder(std::size_t items, int batch_size, std::uint64_t seed)
    : batch_size_(static_cast<std::size_t>(batch_size)), generator_(seed), order_(items), position_(items) {
  TORCH_CHECK(items >= 1, "training needs at least one item, got none");
  TORCH_CHECK(batch_size >= 1, "batch_size must be at least 1, got ", batch_size);
  std::iota(order_.begin(), order_.end(), std::size_t{0});
}

std::vector<TrainingDraw> TrainingOrder::next() {
  if (position_ == order_.size()) {
    shuffle(order_, generator_);
    position_ = 0;
  }
  const std::size_t count = std::min(order_.size() - position_, batch_size_);
  std::vector<TrainingDraw> draws(count);
  // A seed per picture, drawn here in order: the views do not depend on who makes which.
  for (TrainingDraw& draw : draws) draw = {order_[position_++], generator_()};
  samples_ += static_cast<std::int64_t>(count);
  return draws;
}

void TrainingOrder::skip(std::int64_t batches) {
  for (std::int64_t i = 0; i < batches; ++i) next();  // ten million draws a second
}

}  // namespace clip_lora::data
