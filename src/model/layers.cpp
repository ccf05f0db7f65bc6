#include "clip_lora/model/layers.hpp"

#include <ATen/ATen.h>

namespace clip_lora::model {
namespace {

/// Registers an unset, frozen parameter. Memory that nothing has touched costs nothing.
torch::Tensor frozen(torch::nn::Module& module, const std::string& name, at::IntArrayRef shape) {
  return module.register_parameter(name, at::empty(shape), /*requires_grad=*/false);
}

}  // namespace

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out)
    : weight(frozen(*this, "weight", {out, in})), bias(frozen(*this, "bias", {out})) {}

torch::Tensor LinearImpl::forward(const torch::Tensor& x) const { return at::linear(x, weight, bias); }

LayerNormImpl::LayerNormImpl(std::int64_t width, double epsilon)
    : weight(frozen(*this, "weight", {width})), bias(frozen(*this, "bias", {width})), epsilon_(epsilon) {}

torch::Tensor LayerNormImpl::forward(const torch::Tensor& x) const {
  return at::layer_norm(x, weight.sizes(), weight, bias, epsilon_);
}

PatchEmbeddingImpl::PatchEmbeddingImpl(std::int64_t width, std::int64_t patch_size_px)
    : weight(frozen(*this, "weight", {width, 3, patch_size_px, patch_size_px})) {}

torch::Tensor PatchEmbeddingImpl::forward(const torch::Tensor& images) const {
  const std::int64_t patch = weight.size(-1);
  return at::conv2d(images, weight, /*bias=*/{}, /*stride=*/{patch, patch}).flatten(2).transpose(1, 2);
}

TokenEmbeddingImpl::TokenEmbeddingImpl(std::int64_t vocabulary, std::int64_t width)
    : weight(frozen(*this, "weight", {vocabulary, width})) {}

torch::Tensor TokenEmbeddingImpl::forward(const torch::Tensor& ids) const {
  return at::embedding(weight, ids);
}

}  // namespace clip_lora::model
