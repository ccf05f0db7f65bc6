#pragma once

#include <ATen/ATen.h>

#include <array>
#include <string>

#include "clip_lora/ops/layer_norm.hpp"

namespace clip_lora::testing {

/// One set of inputs of the operations that append down-projections to rows.
struct LayerNormCase {
  std::string name;
  std::int64_t rows, width;
  std::array<std::int64_t, 3> ranks;
  double rate = 0.25;
  std::int64_t prefix = 0, skip = 0;

  std::int64_t rank() const { return ranks[0] + ranks[1] + ranks[2]; }
  std::int64_t columns() const { return (rank() + 7) / 8 * 8; }
};

struct LayerNormInputs {
  at::Tensor x, d_rows, residual;
  ops::LayerNormWeights weights;
  ops::DownProjection down;
};

/// Random inputs of type `type`; column 3 is an outlier, as a trained tower has them.
inline LayerNormInputs make_inputs(const LayerNormCase& what, at::ScalarType type) {
  at::manual_seed(what.rows + what.width);
  const auto random = [&](at::IntArrayRef sizes) { return at::randn(sizes).to(type); };
  LayerNormInputs inputs;
  inputs.x = at::randn({what.rows, what.width});
  inputs.x.select(1, 3).add_(30);
  inputs.x = inputs.x.to(type);
  inputs.d_rows = random({what.rows, what.width + what.columns()});
  inputs.residual = random({what.rows, what.width});
  inputs.weights = {random({what.width}), random({what.width}), 1e-5};
  inputs.down.ranks = what.ranks;
  inputs.down.columns = what.columns();
  if (what.rank() > 0) {
    inputs.down.a = 0.1 * at::randn({what.rank(), what.width});
    inputs.down.dropout = {what.rate, at::tensor({std::int64_t{3} << 33, std::int64_t{9}}, at::kLong), 4,
                           what.prefix, what.skip};
  }
  return inputs;
}

}  // namespace clip_lora::testing
