#include "updates.hpp"

#include <ATen/ATen.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

namespace clip_lora::engine {

/// Updates of one frozen weight, on the way into the flat buffers.
struct Updates::Group {
  std::array<std::optional<ops::LowRank>, 3> updates;
  at::Tensor frozen;  // [m · D, D]
  ProjectionUpdates* target;
  std::int64_t stream;  // of its dropout masks
};

namespace {

constexpr std::int64_t kRowsPerPart = 4;
constexpr std::int64_t kColumnMultiple = 8;  // what keeps rows of 16-bit values 16-byte aligned

/// How many parts a tower's gradients are summed in: few rows need few.
std::int64_t parts_of(std::int64_t rows, at::Device device) {
  return std::clamp<std::int64_t>(rows / kRowsPerPart, 1, ops::gradient_parts(device));
}

/// Makes `tensor` a view of `flat` from `offset` on, of the same values, and its .grad one of
/// `flat_gradient`.
void move_into(at::Tensor tensor, const at::Tensor& flat, const at::Tensor& flat_gradient,
               std::int64_t offset) {
  const at::NoGradGuard no_grad;
  const auto place = [&](const at::Tensor& buffer) {
    return buffer.narrow(0, offset, tensor.numel()).view(tensor.sizes());
  };
  at::Tensor moved = place(flat);
  moved.copy_(tensor);
  tensor.set_data(moved);
  tensor.mutable_grad() = place(flat_gradient);
}

/// Of what is drawn in a block: streams 2 n and 2 n + 1, those of other blocks being other ones.
std::int64_t stream_of(const lora::Place& place) {
  return 2 * (2 * place.index + (place.tower == lora::Tower::kVision ? 1 : 0));
}

/// The groups of one adapted block.
std::vector<Updates::Group> groups_of(model::AttentionImpl& attention, const lora::Place& place,
                                      BlockUpdates& target) {
  const std::int64_t stream = stream_of(place);
  const auto& lora = attention.lora;
  std::vector<Updates::Group> groups;
  if (lora.q || lora.k || lora.v) {
    groups.push_back({{lora.q, lora.k, lora.v}, attention.in_proj_weight, &target.in, stream});
  }
  if (lora.o) groups.push_back({{lora.o, {}, {}}, attention.out_proj->weight, &target.out, stream + 1});
  return groups;
}

std::int64_t parameters_of(const ops::AttentionLora& lora) {
  std::int64_t count = 0;
  for (const auto* update : {&lora.q, &lora.k, &lora.v, &lora.o}) {
    if (*update) count += (*update)->a.numel() + (*update)->b.numel();
  }
  return count;
}

/// Values that a tensor takes in the flat buffers, so that the next one is aligned too.
std::int64_t room_for(const at::Tensor& tensor) {
  return (tensor.numel() + kColumnMultiple - 1) / kColumnMultiple * kColumnMultiple;
}

/// The frozen weight with zeroed columns beside it.
at::Tensor with_columns(const at::Tensor& frozen, std::int64_t columns) {
  return at::constant_pad_nd(frozen.detach(), {0, columns});
}

}  // namespace

/// Moves a group's A's and B's into the flat buffers from begin + offset on, and offset behind them.
void Updates::lay_out(const Group& group, const at::Tensor& parts, std::int64_t begin, std::int64_t& offset,
                      const at::Tensor& dropout_state, std::vector<ops::UpColumns>& up_columns) {
  const std::int64_t width = group.frozen.size(1);
  ProjectionUpdates& target = *group.target;
  std::int64_t rank_sum = 0;
  for (std::size_t i = 0; i < group.updates.size(); ++i) {
    const auto& update = group.updates[i];
    if (!update) continue;
    target.down.ranks[i] = update->a.size(0);
    target.scalings[i] = update->scaling;
    target.down.dropout.rate = update->dropout;
    rank_sum += target.down.ranks[i];
  }
  target.down.dropout.state = dropout_state;
  target.down.dropout.stream = group.stream;
  target.down.columns = (rank_sum + kColumnMultiple - 1) / kColumnMultiple * kColumnMultiple;
  target.weight = with_columns(group.frozen, target.down.columns);
  target.down.a = parameters_.narrow(0, begin + offset, rank_sum * width).view({rank_sum, width});
  target.d_a = parts.narrow(1, offset, rank_sum * width).unflatten(1, {rank_sum, width});
  target.d_b = parts.narrow(1, offset + rank_sum * width, rank_sum * width);
  std::int64_t a_at = begin + offset, b_at = a_at + rank_sum * width, column = width;
  for (std::size_t i = 0; i < group.updates.size(); ++i) {
    const auto& update = group.updates[i];
    if (!update) continue;
    const std::int64_t rank = update->a.size(0);
    move_into(update->a, parameters_, gradients_, a_at);
    move_into(update->b, parameters_, gradients_, b_at);
    const at::Tensor third = target.weight.narrow(0, static_cast<std::int64_t>(i) * width, width);
    up_columns.push_back({b_at, update->scaling, third.narrow(1, column, rank)});
    a_at += rank * width;
    b_at += rank * width;
    column += rank;
  }
  offset += 2 * rank_sum * width;
}

void BlockUpdates::collect(bool add) const {
  at::Tensor sum = gradient;
  if (add) {
    sum.add_(parts.sum(0));
  } else {
    at::sum_out(sum, parts, at::IntArrayRef{0});
  }
}

/// Moves a tensor into the flat buffers at `offset`, which goes behind it; returns its gradient.
at::Tensor Updates::move(const at::Tensor& tensor, std::int64_t& offset) {
  if (!tensor.defined()) return {};
  move_into(tensor, parameters_, gradients_, offset);
  offset += room_for(tensor);
  return tensor.grad();
}

void Updates::lay_out(const model::ResidualSlot& slot, ResidualUpdate& target, const ops::Dropout& dropping,
                      std::int64_t& offset) {
  if (slot.adapter.is_empty()) return;
  const ops::ResidualAdapter& adapter = slot.adapter;
  const auto place = [&](const at::Tensor& tensor, at::Tensor& weight, at::Tensor& gradient) {
    if (!tensor.defined()) return;
    weight = rounded_.narrow(0, offset, tensor.numel()).view(tensor.sizes());
    gradient = move(tensor, offset);
  };
  place(adapter.weight, target.weights.weight, target.gradients.weight);
  place(adapter.up, target.weights.up, target.gradients.up);
  place(adapter.down, target.weights.down, target.gradients.down);
  target.weights.scale = parameters_.narrow(0, offset, adapter.scale.numel());
  target.gradients.scale = move(adapter.scale, offset);
  target.unit = slot.unit;
  target.dropping = dropping;
  target.dropping.rate = slot.drop;
}

Updates::Updates(model::Clip& clip, const lora::Adapter& adapter, const at::Tensor& dropout_state,
                 std::int64_t text_rows, std::int64_t vision_rows)
    : adapter_(adapter),
      text_(static_cast<std::size_t>(clip->transformer->layers())),
      vision_(static_cast<std::size_t>(clip->visual->transformer->layers())) {
  const at::NoGradGuard no_grad;
  const auto float32 = at::TensorOptions(clip->device()).dtype(at::kFloat);
  std::int64_t values = 0;
  for (const at::Tensor& parameter : adapter.parameters()) values += room_for(parameter);
  parameters_ = at::zeros({values}, float32);
  gradients_ = at::zeros_like(parameters_);
  rounded_ = clip->dtype() == at::kFloat ? parameters_ : parameters_.to(clip->dtype());
  are_explicit_ = adapter.attach(clip);
  std::int64_t begin = 0;  // of the block, in the flat buffers
  if (!are_explicit_) {
    for (const at::Tensor& parameter : adapter.parameters()) move(parameter, begin);
    return;
  }

  std::vector<ops::UpColumns> up_columns;
  bool any_residual = false;
  for (const lora::Place& place : adapter.places()) {
    const bool is_text = place.tower == lora::Tower::kText;
    auto& target = (is_text ? text_ : vision_)[static_cast<std::size_t>(place.index)];
    auto& block = lora::tower_of(clip, place.tower)->block(place.index);
    const std::int64_t count = parameters_of(block.attn->lora);
    target.parts = at::zeros({parts_of(is_text ? text_rows : vision_rows, clip->device()), count}, float32);
    target.gradient = gradients_.narrow(0, begin, count);
    std::int64_t offset = 0;  // of the group, in the block
    for (const Group& group : groups_of(*block.attn, place, target)) {
      lay_out(group, target.parts, begin, offset, dropout_state, up_columns);
    }
    begin += count;
    ops::Dropout dropping = {.rate = 0.0, .state = dropout_state, .stream = stream_of(place)};
    lay_out(block.attention_slot, target.attention, dropping, begin);
    ++dropping.stream;
    lay_out(block.mlp_slot, target.mlp, dropping, begin);
    any_residual = any_residual || target.any_residual();
  }
  lora::detach(clip);
  if (!any_residual || clip->dtype() == at::kFloat) rounded_.reset();
  writer_ = ops::UpColumnsWriter(std::move(up_columns));
  write_weights();
}

bool Updates::may_share_prefix() const {
  return are_explicit_ && std::ranges::none_of(text_, [](const BlockUpdates& block) {
           return block.attention.any() && block.attention.dropping.rate > 0.0 &&
                  block.attention.unit == model::DropUnit::kSample;
         });
}

void Updates::write_weights() const {
  writer_.write(parameters_);
  if (rounded_.defined()) at::Tensor(rounded_).copy_(parameters_);
}

Updates::~Updates() {
  for (const at::Tensor& parameter : adapter_.parameters()) {  // each a tensor of its own again
    parameter.set_data(parameter.detach().clone());
    parameter.mutable_grad().reset();
  }
}

}  // namespace clip_lora::engine
