#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "features.hpp"

namespace clip_lora::engine {
namespace {

/// While it lives, the tower's adapted blocks compute with the adapter's weights, to which gradients flow.
class AdaptedBlocks {
 public:
  AdaptedBlocks(model::Clip& clip, const lora::Adapter& adapter, lora::Tower tower) {
    for (std::size_t i = 0; i < adapter.places().size(); ++i) {
      const lora::Place& place = adapter.places()[i];
      if (place.tower != tower) continue;
      auto& block = lora::tower_of(clip, tower)->block(place.index);
      frozen_.emplace_back(&block, block.weights());
      block.use(adapter.adapted(i, frozen_.back().second, /*scale=*/1.0));
    }
  }
  ~AdaptedBlocks() {
    for (const auto& [block, weights] : frozen_) block->use(weights);
  }
  AdaptedBlocks(const AdaptedBlocks&) = delete;
  AdaptedBlocks& operator=(const AdaptedBlocks&) = delete;

 private:
  std::vector<std::pair<model::ResidualAttentionBlockImpl*, model::BlockWeights>> frozen_;
};

/// Rows [T, D] as [N, L, D]; shorter sequences are filled up with copies of their last row, which no row
/// before it sees.
at::Tensor padded(const at::Tensor& rows, const ops::Packing& packing) {
  const at::Tensor first = packing.offsets.slice(0, 0, -1).to(at::kLong).unsqueeze(1);  // [N, 1]
  const at::Tensor last = packing.offsets.slice(0, 1).to(at::kLong).unsqueeze(1) - 1;   // [N, 1]
  const at::Tensor steps = at::arange(packing.longest, first.options()).unsqueeze(0);   // [1, L]
  const at::Tensor index = at::minimum(first + steps, last);                            // [N, L]
  return rows.index_select(0, index.flatten()).unflatten(0, index.sizes());
}

}  // namespace

at::Tensor AutogradTower::forward_chunk(const Chunk& chunk) {
  TORCH_CHECK(chunk.packing.prefix == 0, "autograd shares no prefix");
  const at::Tensor rows = padded(chunk.rows, chunk.packing);  // [N, L, D]
  const at::Tensor at_end = chunk.packing.ends - chunk.packing.offsets.slice(0, 0, -1).to(at::kLong);
  const at::Tensor encoded = lora::tower_of(clip_, tower_)->forward(rows);
  const at::Tensor index = at_end.view({-1, 1, 1}).expand({-1, 1, encoded.size(2)});
  const at::Tensor ends = encoded.gather(1, index).squeeze(1);  // [N, D]
  const bool is_text = tower_ == lora::Tower::kText;
  const at::Tensor normalised = (is_text ? clip_->ln_final : clip_->visual->ln_post)->forward(ends);
  return at::matmul(normalised, is_text ? clip_->text_projection : clip_->visual->proj);
}

at::Tensor AutogradTower::forward(const std::vector<Chunk>& chunks) {
  const at::AutoGradMode with_gradients(true);
  const AdaptedBlocks adapted(clip_, adapter_, tower_);
  std::vector<at::Tensor> features;
  for (const Chunk& chunk : chunks) features.push_back(forward_chunk(chunk));
  features_ = at::cat(features).to(at::kFloat);
  return features_.detach();
}

void AutogradTower::backward(const at::Tensor& d_features) {
  const at::Tensor features = std::exchange(features_, {});
  if (features.requires_grad())
    torch::autograd::backward({features}, {d_features});  // else nothing is trained here
}

}  // namespace clip_lora::engine
