#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "clip_lora/core/share.hpp"
#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/clip.hpp"
#include "tower.hpp"

namespace clip_lora::engine {

/// A part of a batch that goes through a tower at once.
struct Chunk {
  ops::Packing packing;
  PlaceInBatch place;
  at::Tensor rows;  ///< [T, D], embedded
};

/// Of all chunks.
std::int64_t rows_of(const std::vector<Chunk>& chunks);

/// A tower with the norm and the projection behind it, which are computed in float32, since they see few
/// rows: from embedded rows to features, and back to the updates' gradients. A batch of several chunks is
/// computed chunk by chunk, and again in the backward pass, so that only one chunk's activations are kept at
/// a time.
class FeatureTower {
 public:
  /// `norm`, `projection` [D, E]: what follows the last block. `updates`: see Tower.
  FeatureTower(const Tower& tower, const model::LayerNorm& norm, double epsilon,
               const at::Tensor& projection);

  const Tower& tower() const { return tower_; }

  /// Features [N, E] float32 of all chunks, not normalised, for inference.
  at::Tensor features(const std::vector<Chunk>& chunks) const;
  /// The same, keeping what backward needs. Only for a tower with updates; the frozen blocks are behind the
  /// rows.
  at::Tensor forward(const std::vector<Chunk>& chunks);
  /// From the gradient of the features, [N, E], to the updates' gradients.
  void backward(const at::Tensor& d_features, const std::vector<Chunk>& chunks);

  /// Bytes that one row leaves on the tape.
  std::int64_t tape_bytes_per_row(std::int64_t element_bytes) const {
    return tower_.tape_bytes(1, element_bytes);
  }

 private:
  struct Tape {
    std::vector<BlockTape> blocks;
    at::Tensor ends;       // [N, D] float32
    ops::Normalised norm;  // of ends
  };

  at::Tensor forward_chunk(const Chunk& chunk, Tape* tape) const;
  at::Tensor project(const at::Tensor& ends, Tape* tape) const;
  void backward_chunk(const at::Tensor& d_features, const Chunk& chunk, bool add);

  Tower tower_;
  ops::LayerNormWeights norm_;
  at::Tensor projection_;
  Tape tape_;
};

FeatureTower text_tower(const model::Clip& clip, const Updates* updates = nullptr);
FeatureTower vision_tower(const model::Clip& clip, const Updates* updates = nullptr);

/// The same by autograd, for adapters that no explicit passes are there for: the model's own modules compute
/// with lora::Adapter::adapted's weights. All chunks' activations are kept.
class AutogradTower {
 public:
  AutogradTower(const model::Clip& clip, const lora::Adapter& adapter, lora::Tower tower)
      : clip_(clip), adapter_(adapter), tower_(tower) {}

  /// As FeatureTower's. No prefix is shared.
  at::Tensor forward(const std::vector<Chunk>& chunks);
  /// Adds to the gradients of the adapter's parameters.
  void backward(const at::Tensor& d_features);

 private:
  at::Tensor forward_chunk(const Chunk& chunk);

  model::Clip clip_;
  const lora::Adapter& adapter_;
  lora::Tower tower_;
  at::Tensor features_;  // with the graph that leads to them
};

/// Prompts without what no result depends on: every token after an end token, and all but one copy of what
/// all prompts begin with. In chunks of up to `rows_per_chunk` own rows (at least one prompt), each with the
/// prefix in front. prompts: on any device; chunks: on the model's, embedded. `own`: the prompts that are
/// packed, in their places among all; nothing: all.
std::vector<Chunk> pack(const model::Clip& clip, const model::Prompts& prompts, bool share_prefix,
                        std::int64_t rows_per_chunk, const std::optional<Share>& own = std::nullopt);

/// Chunks of up to `images_per_chunk` pictures, `count` in all, without rows yet. The first of them is
/// picture `first` of the whole batch.
std::vector<Chunk> image_chunks(const model::Clip& clip, std::int64_t count, std::int64_t images_per_chunk,
                                std::int64_t first = 0);

/// What is added to the embedded patches of B pictures: the class embedding in the class tokens' rows, and
/// everywhere the positional one. [B · L, D].
at::Tensor image_positions(const model::Clip& clip, std::int64_t images);

/// Pictures as rows [B · L, D], normalised. patches: [B · L, 3 · patch²] of the model's type, zeros in the
/// class tokens' rows; positions: as above.
at::Tensor embedded_patches(const model::Clip& clip, const at::Tensor& patches, const at::Tensor& positions);

/// Runs the blocks below the tower's first updated one over the chunks' rows. Their results do not change in
/// training.
void run_frozen_blocks(const Tower& tower, std::vector<Chunk>& chunks);

/// The patch rows of pictures [B, 3, R, R] of any floating type, as ops::patch_rows with class rows gives
/// those of pixels.
at::Tensor patches_of(const at::Tensor& images, std::int64_t patch, at::ScalarType dtype);

}  // namespace clip_lora::engine
