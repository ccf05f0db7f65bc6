// R-Adapter (Kim, Jeong, Kim & Kwak, ECCV 2024): a linear adapter behind attention and MLP of every block,
// trained with dropping, averaged over the steps, re-scaled and merged.
#include <ATen/ATen.h>

#include <cmath>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/ops/residual_adapter.hpp"
#include "method_list.hpp"

namespace clip_lora::lora {
namespace {

constexpr const char* kModules[] = {"adapter_attn.", "adapter_mlp."};

/// U = 0, V Xavier uniform; or W = 0.
io::StateDict fresh_module(const std::string& prefix, const torch::Tensor& frozen,
                           const RAdapterOptions& options) {
  const std::int64_t width = frozen.size(0), rank = options.rank;
  if (rank > width) {
    throw ConfigError("--adapter_rank " + std::to_string(rank) + ": expected at most the tower's width, " +
                      std::to_string(width) + " (0: full rank)");
  }
  const auto float32 = at::TensorOptions().dtype(at::kFloat);
  io::StateDict own;
  own[prefix + "scale"] = at::full({1}, options.initial_scale, float32);
  if (rank == 0) {
    own[prefix + "weight"] = at::zeros({width, width}, float32);
  } else {
    const double bound = std::sqrt(6.0 / static_cast<double>(width + rank));
    own[prefix + "down"] = at::empty({rank, width}, float32).uniform_(-bound, bound);
    own[prefix + "up"] = at::zeros({width, rank}, float32);
  }
  for (auto& [name, tensor] : own) tensor = tensor.to(frozen.device()).requires_grad_();
  return own;
}

ops::ResidualAdapter adapter_of(const io::StateDict& own, const std::string& prefix) {
  const auto tensor = [&](const char* name) {
    const auto found = own.find(prefix + name);
    return found == own.end() ? torch::Tensor() : found->second;
  };
  return {.weight = tensor("weight"), .up = tensor("up"), .down = tensor("down"), .scale = tensor("scale")};
}

model::BlockWeights adapted_weights(const model::BlockWeights& frozen, const io::StateDict& own,
                                    double scale) {
  model::BlockWeights weights = frozen;
  const auto attention = ops::merging_matrix(adapter_of(own, kModules[0]), scale);
  const auto mlp = ops::merging_matrix(adapter_of(own, kModules[1]), scale);
  weights.out_proj_weight = at::matmul(attention, frozen.out_proj_weight);
  weights.out_proj_bias = at::matmul(attention, frozen.out_proj_bias);
  weights.c_proj_weight = at::matmul(mlp, frozen.c_proj_weight);
  weights.c_proj_bias = at::matmul(mlp, frozen.c_proj_bias);
  return weights;
}

}  // namespace

Method r_adapter_method() {
  return method_of(
      "r_adapter", "a residual linear adapter behind every module, averaged and re-scaled (R-Adapter)",
      {{"loss", "mpm_nce"},
       {"lr", 5e-4},
       {"min_lr", 0.0},
       {"weight_decay", 0.0},
       {"warmup", 500},
       {"grad_clip", 1.0},
       {"ema", 0.9},
       {"margin", 0.1},
       {"eval_scale", {0.5}},
       {"augment", "open_clip"},
       {"epochs", 101},
       {"templates", "imagenet"},
       {"train_templates", "random"}},
      {.make =
           [](const model::BlockWeights& frozen, const AdapterOptions& options) {
             io::StateDict own = fresh_module(kModules[0], frozen.out_proj_weight, options.r_adapter);
             own.merge(fresh_module(kModules[1], frozen.c_proj_weight, options.r_adapter));
             return own;
           },
       .adapted = adapted_weights,
       .attach =
           [](model::BlockAdapters& adapters, const io::StateDict& own, const AdapterOptions& options) {
             const auto& [rank, initial_scale, drop, unit] = options.r_adapter;
             adapters.attention = {adapter_of(own, kModules[0]), drop, unit};
             adapters.mlp = {adapter_of(own, kModules[1]), drop, unit};
           },
       .flags = {"adapter_rank"},
       .training_flags = {"adapter_init_scale", "adapter_drop", "adapter_drop_unit"}});
}

}  // namespace clip_lora::lora
