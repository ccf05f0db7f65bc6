#include "tower.hpp"

#include <ATen/ATen.h>

#include <algorithm>

#include "clip_lora/ops/linear.hpp"
#include "clip_lora/ops/linear_gelu.hpp"
#include "clip_lora/ops/residual_adapter.hpp"

namespace clip_lora::engine {
namespace {

/// `down` for rows of which those from `prefix` on are preceded by `skip` others in the whole batch.
ops::DownProjection placed(ops::DownProjection down, std::int64_t prefix, std::int64_t skip) {
  down.dropout.prefix = prefix;
  down.dropout.skip = skip;
  return down;
}

/// The rows packing.ends of x [T, D], [N, D]: a view where they lie evenly.
at::Tensor end_rows(const at::Tensor& x, const ops::Packing& packing) {
  if (!packing.is_dense() || packing.causal) return x.index_select(0, packing.ends);
  return x.unflatten(0, {packing.sequences, packing.longest}).select(1, 0);
}

/// Adds y [N, D] to the rows packing.ends of x [T, D]. No row stands for two sequences: nothing is added to
/// twice.
void add_to_end_rows(at::Tensor& x, const ops::Packing& packing, const at::Tensor& y) {
  if (!packing.is_dense() || packing.causal) {
    x.index_add_(0, packing.ends, y);
  } else {
    end_rows(x, packing).add_(y);
  }
}

}  // namespace

/// The weights of one block and the passes through it.
struct Tower::Block {
  model::ResidualAttentionBlockImpl& weights;
  const BlockUpdates* updates;
  std::int64_t heads;
  ops::Gelu gelu;
  ops::LayerNormWeights ln_1, ln_2;
  ops::DownProjection down_in, down_out;  // without columns where nothing is updated
  const ops::Packing& packing;
  const PlaceInBatch& place;
  const SideStream& side;
  bool at_ends = false;  // behind the last block's attention only the rows packing.ends are left
  bool add = false;      // backward: gradients are added to

  std::int64_t width() const { return ln_1.weight.size(0); }
  const at::Tensor& in_weight() const {
    return down_in.columns > 0 ? updates->in.weight : weights.attn->in_proj_weight;
  }
  const at::Tensor& out_weight() const {
    return down_out.columns > 0 ? updates->out.weight : weights.attn->out_proj->weight;
  }

  at::Tensor factors(const ResidualUpdate& update) const;
  at::Tensor project(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias,
                     const at::Tensor& residual, const ResidualUpdate* update, ResidualTape& tape) const;
  at::Tensor project_backward(const at::Tensor& d_out, const ResidualUpdate* update,
                              ResidualTape& tape) const;
  const ResidualUpdate* behind_attention() const {
    return updates == nullptr ? nullptr : &updates->attention;
  }
  const ResidualUpdate* behind_mlp() const { return updates == nullptr ? nullptr : &updates->mlp; }

  at::Tensor join(const at::Tensor& attended, BlockTape& tape) const;
  at::Tensor attention_half(const at::Tensor& x, BlockTape& tape) const;
  at::Tensor attention_half_at_ends(const at::Tensor& x, BlockTape& tape) const;
  at::Tensor mlp_half(const at::Tensor& x, BlockTape& tape, bool keep_hidden) const;

  at::Tensor join_backward(const at::Tensor& d_middle, BlockTape& tape) const;
  at::Tensor attention_half_backward(const at::Tensor& d_middle, BlockTape& tape, bool needs_dx) const;
  at::Tensor attention_half_at_ends_backward(const at::Tensor& d_middle, BlockTape& tape,
                                             bool needs_dx) const;
  at::Tensor mlp_half_backward(const at::Tensor& d_out, BlockTape& tape) const;
  at::Tensor in_product_backward(const at::Tensor& d_qkv, bool needs_dx) const;
  at::Tensor in_backward(const at::Tensor& d_rows, const at::Tensor& residual, const BlockTape& tape,
                         bool needs_dx) const;
};

/// δ of each row, [T] float32: one draw for each position, each sample, or the module.
at::Tensor Tower::Block::factors(const ResidualUpdate& update) const {
  if (update.dropping.rate == 0.0) return {};
  const bool by_position = update.unit == model::DropUnit::kPosition;
  at::Tensor units = by_position ? place.positions : place.numbers;
  if (at_ends) units = units.index_select(0, packing.ends);
  if (update.unit == model::DropUnit::kModule) units = at::zeros_like(units);
  const std::int64_t count =
      by_position ? packing.prefix + packing.longest : place.sequences + packing.sequences;
  const at::Tensor kept = ops::dropout_masks(update.dropping, 1, count, 1).flatten();
  return kept.index_select(0, units).div_(update.dropping.keep());
}

/// residual + h(rows Wᵀ + bias): a module's last product, what is attached behind it, and the residual sum.
at::Tensor Tower::Block::project(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias,
                                 const at::Tensor& residual, const ResidualUpdate* update,
                                 ResidualTape& tape) const {
  if (update == nullptr || !update->any()) return ops::linear(rows, weight, bias, residual);
  tape.z = ops::linear(rows, weight, bias);
  tape.factors = factors(*update);
  return ops::add_adapted(tape.z, update->weights, tape.factors, residual);
}

/// From project's gradient to that of rows Wᵀ + bias. The adapter's own gradients are left to the side stream.
at::Tensor Tower::Block::project_backward(const at::Tensor& d_out, const ResidualUpdate* update,
                                          ResidualTape& tape) const {
  if (update == nullptr || !update->any()) return d_out;
  tape.d_change = ops::change_gradient(d_out, tape.factors);
  side.run([&] {
    ops::residual_adapter_gradients(tape.d_change, tape.z, update->weights, update->gradients, add);
  });
  return ops::add_adapted_backward(d_out, tape.d_change, update->weights);
}

/// What out_proj reads: the attended rows, with the columns of its own update if it has one.
at::Tensor Tower::Block::join(const at::Tensor& attended, BlockTape& tape) const {
  if (down_out.columns == 0) return attended;
  tape.joined = ops::append_down_projection(attended, down_out);
  return tape.joined;
}

/// x + attn(ln_1(x)). x: [T, D]; returns [T, D].
at::Tensor Tower::Block::attention_half(const at::Tensor& x, BlockTape& tape) const {
  tape.x = x;
  tape.in = ops::layer_norm(x, ln_1, down_in);
  tape.qkv = ops::linear(tape.in.rows, in_weight(), weights.attn->in_proj_bias);
  tape.attended = ops::attend(tape.qkv, packing, heads);
  return project(join(tape.attended.rows, tape), out_weight(), weights.attn->out_proj->bias, x,
                 behind_attention(), tape.attention);
}

/// The same of the rows packing.ends alone: their q, everybody's k and v. Returns [N, D].
at::Tensor Tower::Block::attention_half_at_ends(const at::Tensor& x, BlockTape& tape) const {
  const std::int64_t d = width();
  const auto& bias = weights.attn->in_proj_bias;
  tape.x = x;
  tape.in = ops::layer_norm(x, ln_1, down_in);
  const at::Tensor ends = end_rows(tape.in.rows, packing);  // [N, D + columns]
  tape.qkv = ops::linear(ends, in_weight().narrow(0, 0, d), bias.narrow(0, 0, d));
  tape.kv = ops::linear(tape.in.rows, in_weight().narrow(0, d, 2 * d), bias.narrow(0, d, 2 * d));
  tape.attended = ops::attend_at_ends(tape.qkv, tape.kv, packing, heads);
  return project(join(tape.attended.rows, tape), out_weight(), weights.attn->out_proj->bias,
                 end_rows(x, packing), behind_attention(), tape.attention);
}

/// x + c_proj(gelu(c_fc(ln_2(x)))). x: [T, D]; returns [T, D].
at::Tensor Tower::Block::mlp_half(const at::Tensor& x, BlockTape& tape, bool keep_hidden) const {
  const auto& mlp = weights.mlp;
  tape.middle = x;
  tape.middle_norm = ops::layer_norm(x, ln_2, {});
  const ops::Activated activated =
      ops::linear_gelu(tape.middle_norm.rows, mlp->c_fc->weight, mlp->c_fc->bias, gelu, keep_hidden);
  tape.hidden = activated.hidden;
  tape.middle_norm.rows.reset();  // the weights are frozen: no gradient needs them
  return project(activated.out, mlp->c_proj->weight, mlp->c_proj->bias, x, behind_mlp(), tape.mlp);
}

at::Tensor Tower::Block::mlp_half_backward(const at::Tensor& d_out, BlockTape& tape) const {
  const auto& mlp = weights.mlp;
  const at::Tensor d_hidden = ops::gelu_linear_backward(project_backward(d_out, behind_mlp(), tape.mlp),
                                                        mlp->c_proj->weight, tape.hidden, gelu);
  return ops::layer_norm_backward(ops::linear_backward(d_hidden, mlp->c_fc->weight), tape.middle,
                                  tape.middle_norm, ln_2, {}, /*residual=*/d_out, /*d_a=*/{},
                                  /*needs_dx=*/true);
}

/// From the gradient behind attention to that of the attended rows.
at::Tensor Tower::Block::join_backward(const at::Tensor& d_middle, BlockTape& tape) const {
  const at::Tensor d_projected = project_backward(d_middle, behind_attention(), tape.attention);
  at::Tensor d_joined = ops::linear_backward(d_projected, out_weight());
  if (down_out.columns == 0) return d_joined;
  const auto& out = updates->out;
  ops::up_projection_gradient(d_projected, tape.joined.narrow(1, width(), down_out.columns), down_out.ranks,
                              out.scalings, out.d_b);
  return ops::append_down_projection_backward(d_joined, tape.attended.rows, down_out, out.d_a);
}

/// The gradient of in_proj's rows, [T, D + columns]; of the columns alone, the others unset, if x needs none.
at::Tensor Tower::Block::in_product_backward(const at::Tensor& d_qkv, bool needs_dx) const {
  if (needs_dx) return ops::linear_backward(d_qkv, in_weight());
  at::Tensor d_rows = at::empty({d_qkv.size(0), in_weight().size(1)}, d_qkv.options());
  const auto columns = [&](const at::Tensor& matrix) { return matrix.narrow(1, width(), down_in.columns); };
  columns(d_rows).copy_(ops::linear_backward(d_qkv, columns(in_weight())));
  return d_rows;
}

/// From the gradient of in_proj's rows to that of x, or to A's gradients alone.
at::Tensor Tower::Block::in_backward(const at::Tensor& d_rows, const at::Tensor& residual,
                                     const BlockTape& tape, bool needs_dx) const {
  const at::Tensor d_a = down_in.columns > 0 ? updates->in.d_a : at::Tensor();
  return ops::layer_norm_backward(d_rows, tape.x, tape.in, ln_1, down_in, residual, d_a, needs_dx);
}

at::Tensor Tower::Block::attention_half_backward(const at::Tensor& d_middle, BlockTape& tape,
                                                 bool needs_dx) const {
  const at::Tensor d_attended = join_backward(d_middle, tape);
  if (down_in.columns == 0 && !needs_dx) return {};
  const at::Tensor d_qkv =
      ops::attend_backward(d_attended, tape.qkv, tape.attended, packing, heads);  // [T, 3D]
  if (down_in.columns == 0) {
    return in_backward(ops::linear_backward(d_qkv, in_weight()), d_middle, tape, needs_dx);
  }
  side.run([&] {
    ops::up_projection_gradient(d_qkv, tape.in.rows.narrow(1, width(), down_in.columns), down_in.ranks,
                                updates->in.scalings, updates->in.d_b);
  });
  at::Tensor dx = in_backward(in_product_backward(d_qkv, needs_dx), d_middle, tape, needs_dx);
  side.join();  // before d_qkv's memory is used again
  return dx;
}

/// d_middle: [N, D]; returns [T, D].
at::Tensor Tower::Block::attention_half_at_ends_backward(const at::Tensor& d_middle, BlockTape& tape,
                                                         bool needs_dx) const {
  const std::int64_t d = width();
  const at::Tensor d_attended = join_backward(d_middle, tape);
  if (down_in.columns == 0 && !needs_dx) return {};
  const ops::EndGradients gradients =
      ops::attend_at_ends_backward(d_attended, tape.qkv, tape.kv, tape.attended, packing, heads);
  if (down_in.columns > 0) {
    const at::Tensor columns = tape.in.rows.narrow(1, d, down_in.columns);  // [T, columns]
    const auto& [q, k, v] = down_in.ranks;
    const auto& in = updates->in;
    const std::int64_t k_and_v = d * (k + v);
    if (q > 0) {
      ops::up_projection_gradient(gradients.q, end_rows(columns, packing), {q, 0, 0},
                                  {in.scalings[0], 0.0, 0.0}, in.d_b.narrow(1, 0, d * q));
    }
    if (k_and_v > 0) {
      ops::up_projection_gradient(gradients.kv, columns.narrow(1, q, k + v), {k, v, 0},
                                  {in.scalings[1], in.scalings[2], 0.0}, in.d_b.narrow(1, d * q, k_and_v));
    }
  }
  at::Tensor d_rows =
      ops::linear_backward(gradients.kv, in_weight().narrow(0, d, 2 * d));  // [T, D + columns]
  add_to_end_rows(d_rows, packing, ops::linear_backward(gradients.q, in_weight().narrow(0, 0, d)));
  at::Tensor dx = in_backward(d_rows, /*residual=*/{}, tape, needs_dx);
  if (needs_dx) add_to_end_rows(dx, packing, d_middle);
  return dx;
}

Tower::Tower(const model::Transformer& transformer, const model::TowerArchitecture& architecture,
             const std::vector<BlockUpdates>* updates)
    : transformer_(transformer),
      architecture_(architecture),
      updates_(updates),
      first_updated_(transformer_->layers()),
      side_(std::make_shared<SideStream>(transformer_->block(0).ln_1->weight.device())) {
  if (updates_ == nullptr) return;
  const auto first = std::ranges::find_if(*updates_, [](const BlockUpdates& block) { return block.any(); });
  first_updated_ = first - updates_->begin();
}

std::int64_t Tower::tape_bytes(std::int64_t rows, std::int64_t element_bytes) const {
  // x, normalised, q, k, v, attended (perhaps twice) and middle rows, and the hidden ones
  const bool any_residual =
      updates_ != nullptr &&
      std::ranges::any_of(*updates_, [](const BlockUpdates& block) { return block.any_residual(); });
  const std::int64_t values = (any_residual ? 10 : 8) * architecture_.width + architecture_.mlp_width;
  const std::int64_t temporaries = 16 * architecture_.width;  // of the block that is computed
  return ((layers() - first_updated_) * values + temporaries) * rows * element_bytes;
}

Tower::Block Tower::block(std::int64_t index, const PlaceInBatch& place, const ops::Packing& packing) const {
  auto& weights = transformer_->block(index);
  const double epsilon = architecture_.layer_norm_epsilon;
  const bool is_quick = architecture_.activation == model::Activation::kQuickGelu;
  Block block = {.weights = weights,
                 .updates = nullptr,
                 .heads = architecture_.heads,
                 .gelu = is_quick ? ops::Gelu::kQuick : ops::Gelu::kExact,
                 .ln_1 = {weights.ln_1->weight, weights.ln_1->bias, epsilon},
                 .ln_2 = {weights.ln_2->weight, weights.ln_2->bias, epsilon},
                 .down_in = {},
                 .down_out = {},
                 .packing = packing,
                 .place = place,
                 .side = *side_};
  if (updates_ == nullptr) return block;
  block.updates = &(*updates_)[static_cast<std::size_t>(index)];
  block.down_in = placed(block.updates->in.down, packing.prefix, place.rows);
  const bool is_last = index + 1 == layers();  // its output projection sees a row for each sequence
  block.at_ends = is_last;
  block.down_out = is_last ? placed(block.updates->out.down, 0, place.sequences)
                           : placed(block.updates->out.down, packing.prefix, place.rows);
  return block;
}

at::Tensor Tower::run_frozen(at::Tensor x, std::int64_t end, const ops::Packing& packing) const {
  TORCH_CHECK(end < layers(), "the last block gives the ends alone");
  const PlaceInBatch anywhere;
  for (std::int64_t i = 0; i < end; ++i) {
    BlockTape unused;
    const Block frozen = block(i, anywhere, packing);
    x = frozen.mlp_half(frozen.attention_half(x, unused), unused, /*keep_hidden=*/false);
  }
  return x;
}

at::Tensor Tower::forward(at::Tensor x, std::int64_t begin, const ops::Packing& packing,
                          const PlaceInBatch& place, std::vector<BlockTape>* tape) const {
  for (std::int64_t i = begin; i < layers(); ++i) {
    BlockTape entry;
    const Block current = block(i, place, packing);
    const bool is_last = i + 1 == layers();
    const at::Tensor middle =
        is_last ? current.attention_half_at_ends(x, entry) : current.attention_half(x, entry);
    x = current.mlp_half(middle, entry, /*keep_hidden=*/tape != nullptr);
    if (tape != nullptr) tape->push_back(std::move(entry));
  }
  return x;
}

void Tower::backward(at::Tensor d_ends, std::int64_t begin, const ops::Packing& packing,
                     const PlaceInBatch& place, std::vector<BlockTape>& tape, bool add) const {
  at::Tensor d_rows = std::move(d_ends);
  for (std::int64_t i = layers() - 1; i >= begin; --i) {
    BlockTape entry = std::move(tape.back());
    tape.pop_back();
    Block current = block(i, place, packing);
    current.add = add;
    const bool needs_dx = i > begin;
    const at::Tensor d_middle = current.mlp_half_backward(d_rows, entry);
    d_rows = i + 1 == layers() ? current.attention_half_at_ends_backward(d_middle, entry, needs_dx)
                               : current.attention_half_backward(d_middle, entry, needs_dx);
    if (current.updates->any_residual()) side_->join();  // before the tape's memory is used again
    if (current.updates->any_low_rank()) side_->run([&] { current.updates->collect(add); });
  }
  side_->join();
}

}  // namespace clip_lora::engine
