#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace clip_lora::data {

/// One picture of a training batch.
struct TrainingDraw {
  std::size_t item = 0;         ///< index of it
  std::uint64_t view_seed = 0;  ///< of the generator that its view is drawn by
};

/// Which items the batches of endless shuffled epochs hold. The last batch of an epoch may be smaller. The
/// sequence depends on the seed alone.
class TrainingOrder {
 public:
  /// At least one item; batch_size ≥ 1.
  TrainingOrder(std::size_t items, int batch_size, std::uint64_t seed);

  std::vector<TrainingDraw> next();

  /// Leaves out as many batches: the next one is the one behind them.
  void skip(std::int64_t batches);

  /// How many items have been drawn or left out.
  std::int64_t samples() const { return samples_; }

 private:
  std::size_t batch_size_;
  std::mt19937_64 generator_;
  std::vector<std::size_t> order_;
  std::size_t position_;  // in order_, of the next batch
  std::int64_t samples_ = 0;
};

}  // namespace clip_lora::data
