#include "clip_lora/ops/packing.hpp"

#include <ATen/ATen.h>

#include <algorithm>

namespace clip_lora::ops {
namespace {

constexpr std::int64_t kTileRows = 16;

/// Rows first … end − 1.
struct Span {
  std::int64_t first, end;
};

/// The tiles of one long sequence, each a part of it.
void cut(const Span& sequence, std::vector<std::int64_t>& tiles) {
  for (auto row = sequence.first; row < sequence.end; row += kTileRows) {
    const auto count = std::min(kTileRows, sequence.end - row);
    tiles.insert(tiles.end(), {row, count, sequence.first, sequence.end, row == sequence.first ? 1 : 0});
  }
}

/// Puts sequences that fit into a tile together, in order.
class TileFiller {
 public:
  void add(const Span& sequence) {
    if (sequence.end - open_.first > kTileRows) close();
    if (sequence.end - sequence.first > kTileRows) return cut(sequence, tiles_);
    if (starts_ == 0) open_.first = sequence.first;
    starts_ |= std::int64_t{1} << (sequence.first - open_.first);
    open_.end = sequence.end;
  }

  void close() {
    if (starts_ != 0) {
      tiles_.insert(tiles_.end(), {open_.first, open_.end - open_.first, open_.first, open_.end, starts_});
    }
    starts_ = 0;
  }

  const std::vector<std::int64_t>& tiles() const { return tiles_; }

 private:
  Span open_{0, 0};
  std::int64_t starts_ = 0;
  std::vector<std::int64_t> tiles_;
};

at::Tensor tiles_of(const std::vector<std::int64_t>& offsets, std::int64_t prefix) {
  TileFiller filler;
  if (prefix > 0) filler.add({0, prefix});
  filler.close();
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) filler.add({offsets[i], offsets[i + 1]});
  filler.close();
  return at::tensor(filler.tiles(), at::kInt).view({-1, 5});
}

}  // namespace

Packing Packing::to(at::Device device) const {
  Packing moved = *this;
  for (at::Tensor* tensor : {&moved.offsets, &moved.ends, &moved.tiles}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  return moved;
}

Packing pack_images(std::int64_t sequences, std::int64_t length, at::Device device) {
  TORCH_CHECK(sequences >= 0 && length >= 1, "expected images of at least one row, got ", sequences, " of ",
              length);
  Packing packing;
  packing.sequences = sequences;
  packing.rows = sequences * length;
  packing.longest = length;
  packing.offsets = at::arange(sequences + 1, at::kInt).mul_(length);
  packing.ends = at::arange(sequences, at::kLong).mul_(length);
  return packing.to(device);
}

Packing pack_prompts(const std::vector<std::int64_t>& own_lengths, std::int64_t prefix, at::Device device) {
  TORCH_CHECK(prefix >= 0, "expected a prefix of at least 0 rows, got ", prefix);
  Packing packing;
  packing.sequences = static_cast<std::int64_t>(own_lengths.size());
  packing.prefix = prefix;
  packing.causal = true;
  std::vector<std::int64_t> offsets = {prefix};
  for (const auto length : own_lengths) {
    TORCH_CHECK(length >= 1, "expected prompts of at least one row of their own, got ", length);
    offsets.push_back(offsets.back() + length);
    packing.longest = std::max(packing.longest, length);
  }
  packing.rows = offsets.back();
  packing.offsets = at::tensor(offsets, at::kInt);
  packing.ends = packing.offsets.slice(0, 1).to(at::kLong) - 1;
  packing.tiles = tiles_of(offsets, prefix);
  return packing.to(device);
}

}  // namespace clip_lora::ops
