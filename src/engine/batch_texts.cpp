#include "batch_texts.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <vector>

namespace clip_lora::engine {
namespace {

constexpr std::int64_t kRowsPerFiller = 8;
constexpr std::int64_t kSmallestStep = 64;

/// Rows of each text, its end token included.
std::vector<std::int64_t> lengths_of(const model::Prompts& prompts) {
  const at::Tensor lengths = prompts.eot.cpu() + 1;
  return {lengths.const_data_ptr<std::int64_t>(), lengths.const_data_ptr<std::int64_t>() + lengths.numel()};
}

/// Tiles are whole sequences or full parts of long ones, but for the last part.
std::int64_t most_tiles(const TextRoom& room) { return room.sequences() + room.rows / 16; }

}  // namespace

TextRoom TextRoom::of(const model::Prompts& prompts, std::int64_t context_length) {
  const std::vector<std::int64_t> lengths = lengths_of(prompts);
  TextRoom room;
  room.texts = static_cast<std::int64_t>(lengths.size());
  std::int64_t rows = 0, longest = 0;
  for (const std::int64_t length : lengths) {
    rows += length;
    longest = std::max(longest, length);
  }
  // About two rows for each text, which is what sums of so many lengths differ by.
  const std::int64_t step = std::max(
      kSmallestStep, static_cast<std::int64_t>(std::bit_floor(2 * static_cast<std::uint64_t>(room.texts))));
  room.fillers = step / kRowsPerFiller;
  room.rows = (rows + room.fillers + step - 1) / step * step;
  // Where kernels take another way.
  room.longest = longest <= 16 ? 16 : longest <= 32 ? 32 : context_length;
  return room;
}

BatchTexts::Parts::Parts(const at::Tensor& flat, const TextRoom& room) {
  std::int64_t begin = 0;
  const auto next = [&](std::int64_t count) {
    at::Tensor part = flat.narrow(0, begin, count);
    begin += count;
    return part;
  };
  ids = next(room.rows);
  positions = next(room.rows);
  numbers = next(room.rows);
  ends = next(room.sequences());
  offsets = next(room.sequences() + 1);
  tiles = next(5 * most_tiles(room)).view({-1, 5});
}

BatchTexts::BatchTexts(const model::Clip& clip, const TextRoom& room) : clip_(clip), room_(room) {
  const std::int64_t count = 3 * room.rows + 2 * room.sequences() + 1 + 5 * most_tiles(room);
  const at::Device device = clip_->device();
  host_ = at::zeros({count}, at::TensorOptions(at::kLong).pinned_memory(device.is_cuda()));
  device_ = at::zeros({count}, at::TensorOptions(device).dtype(at::kLong));
  on_host_ = Parts(host_, room);
  on_device_ = Parts(device_, room);
  chunk_.packing.sequences = room.sequences();
  chunk_.packing.rows = room.rows;
  chunk_.packing.longest = room.longest;
  chunk_.packing.causal = true;
  chunk_.packing.offsets = on_device_.offsets.to(at::kInt);
  chunk_.packing.ends = on_device_.ends;
  chunk_.packing.tiles = on_device_.tiles.to(at::kInt);
  chunk_.place.positions = on_device_.positions;
  chunk_.place.numbers = on_device_.numbers;
}

void BatchTexts::fill(const model::Prompts& prompts) {
  TORCH_CHECK(TextRoom::of(prompts, clip_->architecture().context_length) == room_, "texts of another room");
  std::vector<std::int64_t> lengths = lengths_of(prompts);
  std::int64_t left = room_.rows;
  for (const std::int64_t length : lengths) left -= length;
  for (std::int64_t i = room_.fillers; i > 0; --i) {
    lengths.push_back(left / i);
    left -= lengths.back();
  }
  const ops::Packing packing = ops::pack_prompts(lengths, /*prefix=*/0, at::kCPU);
  on_host_.ends.copy_(packing.ends);
  on_host_.offsets.copy_(packing.offsets);
  on_host_.tiles.zero_();  // a tile of no rows is none
  on_host_.tiles.narrow(0, 0, packing.tiles.size(0)).copy_(packing.tiles);

  const at::Tensor ids = prompts.ids.cpu().contiguous();
  auto* const tokens = on_host_.ids.mutable_data_ptr<std::int64_t>();
  auto* const positions = on_host_.positions.mutable_data_ptr<std::int64_t>();
  auto* const numbers = on_host_.numbers.mutable_data_ptr<std::int64_t>();
  std::int64_t row = 0;
  for (std::int64_t i = 0; i < room_.sequences(); ++i) {
    const std::int64_t* const text =
        i < room_.texts ? ids.const_data_ptr<std::int64_t>() + i * ids.size(1) : nullptr;
    for (std::int64_t position = 0; position < lengths[static_cast<std::size_t>(i)]; ++position, ++row) {
      tokens[row] = text == nullptr ? 0 : text[position];
      positions[row] = position;
      numbers[row] = i;
    }
  }

  device_.copy_(host_, /*non_blocking=*/true);
  chunk_.packing.offsets.copy_(on_device_.offsets);
  chunk_.packing.tiles.copy_(on_device_.tiles);
}

Chunk BatchTexts::embedded() const {
  Chunk chunk = chunk_;
  chunk.rows = clip_->token_embedding->weight.index_select(0, on_device_.ids) +
               clip_->positional_embedding.index_select(0, on_device_.positions);
  return chunk;
}

at::Tensor BatchTexts::without_fillers(const at::Tensor& features) const {
  return features.narrow(0, 0, room_.texts);
}

at::Tensor BatchTexts::with_fillers(const at::Tensor& d_features) const {
  return at::constant_pad_nd(d_features, {0, 0, 0, room_.fillers});
}

}  // namespace clip_lora::engine
