#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "clip_lora/model/transformer.hpp"
#include "clip_lora/ops/layer_norm.hpp"
#include "clip_lora/ops/packing.hpp"
#include "clip_lora/ops/sequence_attention.hpp"
#include "replay.hpp"
#include "updates.hpp"

namespace clip_lora::engine {

/// What the backward pass of a residual adapter needs.
struct ResidualTape {
  at::Tensor z;        ///< [T, D], what the module has yielded
  at::Tensor factors;  ///< [T] float32, δ; undefined: 1
  /// [T, D], from the backward pass: lives until the side stream has read it.
  at::Tensor d_change = {};
};

/// What the backward pass of one block needs of its forward pass. T rows; N of them in the last block, from
/// its attention on.
struct BlockTape {
  at::Tensor x;                 ///< [T, D], what came in
  ops::Normalised in;           ///< of ln_1, with the updates' columns
  at::Tensor qkv;               ///< [T, 3D]; in the last block q [N, D] …
  at::Tensor kv;                ///< … and kv [T, 2D]
  ops::Attended attended;       ///< [T, D]
  at::Tensor joined;            ///< attended rows with the columns of the output projection's update
  at::Tensor middle;            ///< [T, D], after attention
  ops::Normalised middle_norm;  ///< of ln_2; its rows are not kept
  at::Tensor hidden;            ///< [T, M], before the activation
  ResidualTape attention;       ///< behind attention
  ResidualTape mlp;             ///< behind the multilayer perceptron
};

/// Which part of a batch a pass sees. Its rows draw the dropout masks that they would draw in the whole
/// batch.
struct PlaceInBatch {
  std::int64_t rows = 0;       ///< own rows of sequences before the first one of this part
  std::int64_t sequences = 0;  ///< sequences before it
  /// Of each row of this part, [T] int64: its position in its sequence, and the number of its sequence in the
  /// batch (of a shared prefix 0), which is what a residual adapter's dropping goes by.
  at::Tensor positions = {};
  at::Tensor numbers = {};
};

/// One of CLIP's towers as explicit forward and backward passes over packed rows. Equal to
/// model::Transformer, but for the last block, of which only the rows that stand for their sequences are
/// computed.
class Tower {
 public:
  /// `updates`: by block, of the model's present weights; empty for a tower as it stands. Neither is copied.
  Tower(const model::Transformer& transformer, const model::TowerArchitecture& architecture,
        const std::vector<BlockUpdates>* updates = nullptr);

  /// The first block with updates, or the number of blocks.
  std::int64_t first_updated() const { return first_updated_; }
  std::int64_t layers() const { return transformer_->layers(); }
  /// Bytes that `rows` rows leave on a tape.
  std::int64_t tape_bytes(std::int64_t rows, std::int64_t element_bytes) const;

  /// Blocks 0 … end − 1 (not the last) on rows x [T, D].
  at::Tensor run_frozen(at::Tensor x, std::int64_t end, const ops::Packing& packing) const;
  /// Blocks `begin` … to the last; returns the rows packing.ends, [N, D]. `tape` gets an entry for each
  /// block, or is null.
  at::Tensor forward(at::Tensor x, std::int64_t begin, const ops::Packing& packing, const PlaceInBatch& place,
                     std::vector<BlockTape>* tape) const;
  /// From the gradient of forward's result to the updates' gradients, which are set, or added to. Empties the
  /// tape. What nothing waits for, the gradients of B's and the sums of parts, is computed beside the rest.
  void backward(at::Tensor d_ends, std::int64_t begin, const ops::Packing& packing, const PlaceInBatch& place,
                std::vector<BlockTape>& tape, bool add) const;

 private:
  struct Block;
  Block block(std::int64_t index, const PlaceInBatch& place, const ops::Packing& packing) const;

  mutable model::Transformer transformer_;
  model::TowerArchitecture architecture_;
  const std::vector<BlockUpdates>* updates_;
  std::int64_t first_updated_;
  std::shared_ptr<const SideStream> side_;
};

}  // namespace clip_lora::engine
