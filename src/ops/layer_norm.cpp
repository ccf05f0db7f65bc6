#include "clip_lora/ops/layer_norm.hpp"

#include <ATen/ATen.h>
#include <ATen/OpMathType.h>

#include <algorithm>
#include <numeric>

#include "mask_words.hpp"

#ifdef CLIP_LORA_WITH_CUDA
#include "device_limits.hpp"
#include "layer_norm_cuda.hpp"
#endif

namespace clip_lora::ops {
namespace {

using Ranks = std::array<std::int64_t, 3>;

/// On a CPU, rows are worked on in pieces that stay in its cache from one operation to the next.
constexpr std::int64_t kRowsInCache = 128;

template <typename Run>
void for_pieces(const at::Tensor& x, const Run& run) {
  const std::int64_t count = x.size(0), rows = x.is_cuda() ? std::max<std::int64_t>(count, 1) : kRowsInCache;
  for (std::int64_t first = 0; first < count; first += rows) run(first, std::min(rows, count - first));
}

/// The type of products: at least float32, since they become gradients of float32.
at::ScalarType product_type(const at::Tensor& x) { return at::toOpMathType(x.scalar_type()); }

std::int64_t rank_sum(const Ranks& ranks) {
  return std::accumulate(ranks.begin(), ranks.end(), std::int64_t{0});
}

/// One low-rank update: its mask and its rows of A, which are also its columns behind D.
struct Update {
  std::int64_t mask, first, rank;
};

std::vector<Update> updates_of(const Ranks& ranks) {
  std::vector<Update> updates;
  std::int64_t first = 0;
  for (std::size_t mask = 0; mask < ranks.size(); ++mask) {
    if (ranks[mask] > 0) updates.push_back({static_cast<std::int64_t>(mask), first, ranks[mask]});
    first += ranks[mask];
  }
  return updates;
}

at::Tensor mask_words_of(const DownProjection& down, std::int64_t first_row, std::int64_t rows,
                         std::int64_t width) {
  return draw_mask_words(down.dropout, updates_of(down.ranks).back().mask + 1, first_row, rows, width);
}

/// Fills columns D … of rows [T, D + columns], whose first D are there: those of `count` rows from `first`
/// on.
void append_columns(const at::Tensor& rows, const DownProjection& down, std::int64_t first,
                    std::int64_t count) {
  const std::int64_t width = rows.size(1) - down.columns, used = rank_sum(down.ranks);
  const at::Tensor piece = rows.narrow(0, first, count);
  const at::Tensor y = piece.narrow(1, 0, width).to(product_type(rows));
  const at::Tensor words = mask_words_of(down, first, count, width);
  for (const Update& update : updates_of(down.ranks)) {
    const at::Tensor a = down.a.narrow(0, update.first, update.rank).to(y.scalar_type());  // [R, D]
    const at::Tensor dropped = apply_mask(y, words, update.mask, 1 / down.dropout.keep());
    piece.narrow(1, width + update.first, update.rank).copy_(at::mm(dropped, a.t()));
  }
  piece.narrow(1, width + used, down.columns - used).zero_();
}

Normalised layer_norm_definition(const at::Tensor& x, const LayerNormWeights& weights,
                                 const DownProjection& down) {
  const std::int64_t width = x.size(1);
  const at::ScalarType type = product_type(x), statistic = at::toOpMathType(x.scalar_type());
  const at::Tensor weight = weights.weight.to(type), bias = weights.bias.to(type);
  Normalised result = {at::empty({x.size(0), width + down.columns}, x.options()),
                       at::empty({x.size(0)}, x.options().dtype(statistic)),
                       at::empty({x.size(0)}, x.options().dtype(statistic))};
  for_pieces(x, [&](std::int64_t first, std::int64_t count) {
    const auto [y, mean, inverse_deviation] =
        at::native_layer_norm(x.narrow(0, first, count).to(type), {width}, weight, bias, weights.epsilon);
    result.rows.narrow(0, first, count).narrow(1, 0, width).copy_(y);
    result.mean.narrow(0, first, count).copy_(mean.view({count}));
    result.inverse_deviation.narrow(0, first, count).copy_(inverse_deviation.view({count}));
    if (down.columns > 0) append_columns(result.rows, down, first, count);
  });
  return result;
}

/// What a piece of rows went through forward, as backward needs it: y is what the columns were computed from.
struct Piece {
  std::int64_t first, count;
  at::Tensor y;
};

/// dy: [count, D], gradient of y's own columns, to which the updates' is added; d_columns: [count, n]. d_a:
/// [n, D].
void down_backward(const Piece& piece, const at::Tensor& d_columns, const DownProjection& down,
                   at::Tensor& dy, const at::Tensor& d_a) {
  const double scale = 1 / down.dropout.keep();
  const at::Tensor words = mask_words_of(down, piece.first, piece.count, piece.y.size(1));
  for (const Update& update : updates_of(down.ranks)) {
    const at::Tensor da =
        d_columns.narrow(1, update.first, update.rank).to(piece.y.scalar_type());  // [count, R]
    const at::Tensor dropped = apply_mask(piece.y, words, update.mask, scale);
    d_a.narrow(0, update.first, update.rank).add_(at::mm(da.t(), dropped));
    if (!dy.defined()) continue;
    const at::Tensor a = down.a.narrow(0, update.first, update.rank).to(piece.y.scalar_type());  // [R, D]
    dy = dy + apply_mask(at::mm(da, a), words, update.mask, scale);
  }
}

/// Both backwards; weights: null where the rows are not normalised.
at::Tensor backward_definition(const at::Tensor& d_rows, const at::Tensor& x, const Normalised& normalised,
                               const LayerNormWeights* weights, const DownProjection& down,
                               const at::Tensor& residual, const at::Tensor& d_a, bool needs_dx) {
  const std::int64_t width = x.size(1);
  const at::ScalarType type = product_type(x);
  const at::Tensor weight = weights != nullptr ? weights->weight.to(type) : at::Tensor();
  const at::Tensor bias = weights != nullptr ? weights->bias.to(type) : at::Tensor();
  if (down.columns > 0) d_a.zero_();
  at::Tensor dx = needs_dx ? at::empty(x.sizes(), x.options()) : at::Tensor();
  for_pieces(x, [&](std::int64_t first, std::int64_t count) {
    const at::Tensor x_piece = x.narrow(0, first, count).to(type), d_piece = d_rows.narrow(0, first, count);
    at::Tensor dy = needs_dx ? d_piece.narrow(1, 0, width).to(type) : at::Tensor();
    if (down.columns > 0) {
      Piece piece = {first, count, x_piece};
      if (weights != nullptr) {  // rounded as forward
        piece.y = std::get<0>(at::native_layer_norm(x_piece, {width}, weight, bias, weights->epsilon))
                      .to(x.scalar_type())
                      .to(type);
      }
      down_backward(piece, d_piece.narrow(1, width, down.columns), down, dy, d_a[0]);
    }
    if (!needs_dx) return;
    if (weights != nullptr) {
      const auto statistic = [&](const at::Tensor& all) {
        return all.narrow(0, first, count).view({count, 1});
      };
      dy = std::get<0>(at::native_layer_norm_backward(
          dy.contiguous(), x_piece, {width}, statistic(normalised.mean),
          statistic(normalised.inverse_deviation), weight, bias, {true, false, false}));
    }
    at::Tensor dx_piece = dx.narrow(0, first, count);
    if (residual.defined()) {
      at::add_out(dx_piece, dy, residual.narrow(0, first, count));
    } else {
      dx_piece.copy_(dy);
    }
  });
  return dx;
}

void up_projection_gradient_definition(const at::Tensor& dy, const at::Tensor& down_columns,
                                       const Ranks& ranks, const std::array<double, 3>& scalings,
                                       std::int64_t width, const at::Tensor& d_b) {
  const at::ScalarType type = product_type(dy);
  d_b.zero_();
  std::int64_t offset = 0;
  for (const Update& update : updates_of(ranks)) {
    const at::Tensor dy_part = dy.narrow(1, update.mask * width, width).to(type);     // [T, D]
    const at::Tensor a = down_columns.narrow(1, update.first, update.rank).to(type);  // [T, R]
    const at::Tensor part = d_b[0].narrow(0, offset, width * update.rank).view({width, update.rank});
    part.copy_(at::mm(a.t(), dy_part).t()).mul_(scalings[static_cast<std::size_t>(update.mask)]);
    offset += width * update.rank;
  }
}

void check_down(const char* name, const at::Tensor& x, const DownProjection& down) {
  TORCH_CHECK(x.dim() == 2 && x.is_contiguous(), name, ": x should be contiguous [T, D], got ", x.sizes());
  if (down.columns == 0) return;
  TORCH_CHECK(down.a.dim() == 2 && down.a.size(0) == rank_sum(down.ranks) && down.a.size(1) == x.size(1) &&
                  down.columns >= down.a.size(0),
              name, ": A ", down.a.sizes(), " does not fit ranks ", at::IntArrayRef(down.ranks), ", x ",
              x.sizes(), " and ", down.columns, " columns");
}

void check_backward(const char* name, const at::Tensor& d_rows, const at::Tensor& x,
                    const DownProjection& down, const at::Tensor& d_a) {
  check_down(name, x, down);
  TORCH_CHECK(d_rows.dim() == 2 && d_rows.size(0) == x.size(0) && d_rows.size(1) == x.size(1) + down.columns,
              name, ": the rows' gradient ", d_rows.sizes(), " does not fit x ", x.sizes(), " and ",
              down.columns, " columns");
  TORCH_CHECK(
      down.columns == 0 || (d_a.dim() == 3 && d_a.size(1) == down.a.size(0) && d_a.size(2) == x.size(1)),
      name, ": A's gradient is [K, n, D]");
}

}  // namespace

std::int64_t gradient_parts(const at::Device& device) {
#ifdef CLIP_LORA_WITH_CUDA
  if (device.is_cuda()) return device_limits().multiprocessors;
#endif
  TORCH_CHECK(device.is_cpu(), "gradient_parts: unknown device ", device);
  return 1;
}

Normalised layer_norm(const at::Tensor& x, const LayerNormWeights& weights, const DownProjection& down) {
  check_down("layer_norm", x, down);
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda() && on_cuda::can_append_forward(x, &weights, down)) {
    return on_cuda::append_forward(x, &weights, down);
  }
#endif
  return layer_norm_definition(x, weights, down);
}

at::Tensor layer_norm_backward(const at::Tensor& d_rows, const at::Tensor& x, const Normalised& normalised,
                               const LayerNormWeights& weights, const DownProjection& down,
                               const at::Tensor& residual, const at::Tensor& d_a, bool needs_dx) {
  check_backward("layer_norm_backward", d_rows, x, down, d_a);
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda() && on_cuda::can_append_backward(d_rows, x, &weights, down, residual, d_a)) {
    return on_cuda::append_backward(d_rows, x, normalised, &weights, down, residual, d_a, needs_dx);
  }
#endif
  return backward_definition(d_rows, x, normalised, &weights, down, residual, d_a, needs_dx);
}

at::Tensor append_down_projection(const at::Tensor& x, const DownProjection& down) {
  check_down("append_down_projection", x, down);
  TORCH_CHECK(down.columns > 0, "append_down_projection: there is no update");
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda() && on_cuda::can_append_forward(x, nullptr, down)) {
    return on_cuda::append_forward(x, nullptr, down).rows;
  }
#endif
  at::Tensor rows = at::empty({x.size(0), x.size(1) + down.columns}, x.options());
  for_pieces(x, [&](std::int64_t first, std::int64_t count) {
    rows.narrow(0, first, count).narrow(1, 0, x.size(1)).copy_(x.narrow(0, first, count));
    append_columns(rows, down, first, count);
  });
  return rows;
}

at::Tensor append_down_projection_backward(const at::Tensor& d_rows, const at::Tensor& x,
                                           const DownProjection& down, const at::Tensor& d_a) {
  check_backward("append_down_projection_backward", d_rows, x, down, d_a);
#ifdef CLIP_LORA_WITH_CUDA
  if (x.is_cuda() && on_cuda::can_append_backward(d_rows, x, nullptr, down, {}, d_a)) {
    return on_cuda::append_backward(d_rows, x, {}, nullptr, down, {}, d_a, true);
  }
#endif
  return backward_definition(d_rows, x, {}, nullptr, down, {}, d_a, true);
}

void up_projection_gradient(const at::Tensor& dy, const at::Tensor& down_columns, const Ranks& ranks,
                            const std::array<double, 3>& scalings, const at::Tensor& d_b) {
  const std::int64_t rank = rank_sum(ranks);
  TORCH_CHECK(d_b.dim() == 2 && rank > 0 && d_b.size(1) % rank == 0 && dy.dim() == 2 &&
                  dy.size(0) == down_columns.size(0) && down_columns.size(1) >= rank,
              "up_projection_gradient: d_b ", d_b.sizes(), ", dy ", dy.sizes(), " and columns ",
              down_columns.sizes(), " do not fit ranks ", at::IntArrayRef(ranks));
  const std::int64_t width = d_b.size(1) / rank;
#ifdef CLIP_LORA_WITH_CUDA
  if (dy.is_cuda() && on_cuda::can_sum_up_gradient(dy, down_columns, ranks, width, d_b)) {
    return on_cuda::up_projection_gradient(dy, down_columns, ranks, scalings, width, d_b);
  }
#endif
  up_projection_gradient_definition(dy, down_columns, ranks, scalings, width, d_b);
}

}  // namespace clip_lora::ops
