// LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604): A and B are the leading singular vectors of the frozen
// weight and stay frozen; an R × R matrix between them, zero at the start, is all that is trained. An example
// of a method in a file.
#include <ATen/ATen.h>

#include "clip_lora/core/errors.hpp"
#include "method_list.hpp"

namespace clip_lora::lora {
namespace {

constexpr const char* kThirds[] = {"q", "k", "v"};

/// W ≈ U Σ Vᵀ: B = U Σ [D, R], A = Vᵀ [R, D], and a trained R × R matrix.
io::StateDict make(const model::BlockWeights& frozen, const AdapterOptions& options) {
  const std::int64_t rank = options.lora.rank, width = frozen.in_proj_weight.size(1);
  if (rank > width) {
    throw ConfigError("--r " + std::to_string(rank) + ": expected at most the tower's width, " +
                      std::to_string(width));
  }
  io::StateDict own;
  const auto thirds = frozen.in_proj_weight.chunk(3, 0);
  for (std::size_t i = 0; i < thirds.size(); ++i) {
    const std::string name = kThirds[i];
    const auto [u, sigma, vh] = at::linalg_svd(thirds[i], /*full_matrices=*/false);
    // Singular vectors are unique but for their signs: the largest entry of each of A's is positive.
    const auto signs = vh.gather(1, vh.abs().argmax(1, /*keepdim=*/true)).sign();  // [D, 1]
    own[name + "_B"] = (u * (sigma * signs.squeeze(1))).narrow(1, 0, rank).contiguous();
    own[name + "_A"] = (vh * signs).narrow(0, 0, rank).contiguous();
    own[name + "_R"] = at::zeros({rank, rank}, frozen.in_proj_weight.options()).requires_grad_();
  }
  return own;
}

/// W + scale · B R A of q, k and v.
model::BlockWeights adapted(const model::BlockWeights& frozen, const io::StateDict& own, double scale) {
  std::vector<torch::Tensor> thirds = frozen.in_proj_weight.chunk(3, 0);
  for (std::size_t i = 0; i < thirds.size(); ++i) {
    const std::string name = kThirds[i];
    const auto update = at::matmul(own.at(name + "_B"), at::matmul(own.at(name + "_R"), own.at(name + "_A")));
    thirds[i] = thirds[i] + scale * update;
  }
  model::BlockWeights weights = frozen;
  weights.in_proj_weight = at::cat(thirds, 0);
  return weights;
}

}  // namespace

Method lora_xs_method() {
  return method_of("lora_xs", "an R x R matrix between frozen singular vectors (LoRA-XS, an example)",
                   {{"r", 16}, {"lr", 2e-3}}, {.make = make, .adapted = adapted, .flags = {"r"}});
}

}  // namespace clip_lora::lora
