#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "clip_lora/lora/adapter.hpp"
#include "clip_lora/model/clip.hpp"
#include "clip_lora/ops/adamw.hpp"
#include "clip_lora/ops/layer_norm.hpp"
#include "clip_lora/ops/residual_adapter.hpp"

namespace clip_lora::engine {

/// The low-rank updates of projections that read the same rows: q, k and v of a block, or its output
/// projection.
struct ProjectionUpdates {
  ops::DownProjection down;             ///< their A's; no columns: nothing is updated here
  std::array<double, 3> scalings = {};  ///< γ of each
  at::Tensor weight;                    ///< [m · D, D + columns]: the frozen weight, then γB in its columns
  at::Tensor d_a;  ///< [K, n, D] and [K, Σ D R] float32: what an iteration leaves here adds
  at::Tensor d_b;  ///< up over K to the gradients

  bool any() const { return down.columns > 0; }
};

/// A residual adapter behind a module.
struct ResidualUpdate {
  ops::ResidualAdapter weights;    ///< of the compute type but for s: see ops::add_adapted
  ops::ResidualAdapter gradients;  ///< float32, parts of the flat gradients
  model::DropUnit unit = model::DropUnit::kPosition;
  ops::Dropout dropping;  ///< a draw for each unit

  bool any() const { return !weights.is_empty(); }
};

/// The updates of one block.
struct BlockUpdates {
  ProjectionUpdates in;      ///< of in_proj: q, k, v, as masks 0, 1, 2
  ProjectionUpdates out;     ///< of out_proj
  ResidualUpdate attention;  ///< behind attention
  ResidualUpdate mlp;        ///< behind the multilayer perceptron
  at::Tensor parts;          ///< [K, n] float32: all its d_a's and d_b's
  at::Tensor gradient;       ///< [n] float32, their part of the flat gradients

  bool any_low_rank() const { return in.any() || out.any(); }
  bool any_residual() const { return attention.any() || mlp.any(); }
  bool any() const { return any_low_rank() || any_residual(); }
  /// Sums up what a backward pass has left in `parts`: sets the gradient, or adds to it.
  void collect(bool add) const;
};

/// What an adapter trains in one flat buffer, its gradients in another. What explicit passes compute with:
/// the frozen weights with room for γB beside them, residual adapters in the compute type. While it lives,
/// the adapter's tensors are views of the buffers, and `.grad` theirs.
class Updates {
 public:
  /// `dropout_state`: see ops::Dropout. The model gives the frozen weights; it is not changed. Rows: how many
  /// a tower will have at once, which decides how many parts its gradients are best summed in.
  Updates(model::Clip& clip, const lora::Adapter& adapter, const at::Tensor& dropout_state,
          std::int64_t text_rows, std::int64_t vision_rows);
  ~Updates();
  Updates(const Updates&) = delete;
  Updates& operator=(const Updates&) = delete;

  /// Whether there are explicit passes for the adapter; else its gradients are autograd's.
  bool are_explicit() const { return are_explicit_; }
  /// Whether all prompts may share what they begin with: not where each sample drops on its own, nor with
  /// autograd.
  bool may_share_prefix() const;

  /// By block of the tower; blocks without updates have none.
  const std::vector<BlockUpdates>& of(lora::Tower tower) const {
    return tower == lora::Tower::kText ? text_ : vision_;
  }

  /// [n] float32.
  const at::Tensor& parameters() const { return parameters_; }
  const at::Tensor& gradients() const { return gradients_; }

  /// Puts the current γB beside the frozen weights, and residual adapters into the compute type.
  void write_weights() const;

  struct Group;

 private:
  void lay_out(const Group& group, const at::Tensor& parts, std::int64_t begin, std::int64_t& offset,
               const at::Tensor& dropout_state, std::vector<ops::UpColumns>& up_columns);

  void lay_out(const model::ResidualSlot& slot, ResidualUpdate& target, const ops::Dropout& dropping,
               std::int64_t& offset);
  at::Tensor move(const at::Tensor& tensor, std::int64_t& offset);

  const lora::Adapter& adapter_;
  bool are_explicit_ = false;
  at::Tensor parameters_;
  at::Tensor gradients_;
  at::Tensor rounded_;  // the parameters in the compute type, if residual adapters need them so
  std::vector<BlockUpdates> text_;
  std::vector<BlockUpdates> vision_;
  ops::UpColumnsWriter writer_;
};

}  // namespace clip_lora::engine
