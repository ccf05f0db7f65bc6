#include "clip_lora/model/clip.hpp"

#include <ATen/ATen.h>

namespace clip_lora::model {

Prompts Prompts::to(torch::Device device) const { return {ids.to(device), eot.to(device)}; }

Prompts Prompts::slice(std::int64_t begin, std::int64_t end) const {
  return {ids.slice(0, begin, end), eot.slice(0, begin, end)};
}

Prompts make_prompts(const std::vector<std::vector<std::int64_t>>& rows) {
  TORCH_CHECK(!rows.empty(), "no prompts");
  std::vector<torch::Tensor> tensors;
  for (const auto& row : rows) tensors.push_back(at::tensor(row, at::kLong));
  const torch::Tensor ids = at::stack(tensors);     // [C, context_length]
  const torch::Tensor eot = ids.argmax(/*dim=*/1);  // the end token is the largest id, its first place counts
  const std::int64_t longest = eot.max().item<std::int64_t>() + 1;
  return {ids.narrow(1, 0, longest).contiguous(), eot};
}

VisionTransformerImpl::VisionTransformerImpl(const ClipArchitecture& architecture) {
  const std::int64_t width = architecture.vision.width;
  const double epsilon = architecture.vision.layer_norm_epsilon;
  const std::int64_t grid = architecture.image_size_px / architecture.patch_size_px;
  conv1 = register_module("conv1", PatchEmbedding(width, architecture.patch_size_px));
  class_embedding = register_parameter("class_embedding", at::empty({width}), false);
  positional_embedding =
      register_parameter("positional_embedding", at::empty({grid * grid + 1, width}), false);
  ln_pre = register_module("ln_pre", LayerNorm(width, epsilon));
  transformer = register_module("transformer", Transformer(architecture.vision, /*causal=*/false));
  ln_post = register_module("ln_post", LayerNorm(width, epsilon));
  proj = register_parameter("proj", at::empty({width, architecture.embedding}), false);
}

torch::Tensor VisionTransformerImpl::forward(const torch::Tensor& images) {
  const torch::Tensor patches = conv1(images);                                       // [B, grid², D]
  const torch::Tensor classes = class_embedding.expand({images.size(0), 1, -1});     // [B, 1, D]
  const torch::Tensor rows = at::cat({classes, patches}, 1) + positional_embedding;  // [B, grid² + 1, D]
  const torch::Tensor encoded = transformer(ln_pre(rows));
  return at::matmul(ln_post(encoded.select(1, 0)), proj);
}

ClipImpl::ClipImpl(const ClipArchitecture& architecture) : architecture_(architecture) {
  const std::int64_t width = architecture.text.width;
  visual = register_module("visual", VisionTransformer(architecture));
  transformer = register_module("transformer", Transformer(architecture.text, /*causal=*/true));
  token_embedding = register_module("token_embedding", TokenEmbedding(architecture.vocabulary, width));
  positional_embedding =
      register_parameter("positional_embedding", at::empty({architecture.context_length, width}), false);
  ln_final = register_module("ln_final", LayerNorm(width, architecture.text.layer_norm_epsilon));
  text_projection = register_parameter("text_projection", at::empty({width, architecture.embedding}), false);
  logit_scale = register_parameter("logit_scale", at::empty({}), false);
  eval();
}

torch::Tensor ClipImpl::encode_image(const torch::Tensor& images) { return visual(images); }

torch::Tensor ClipImpl::encode_text(const Prompts& prompts) {
  const std::int64_t length = prompts.ids.size(1);
  const torch::Tensor rows =
      token_embedding(prompts.ids) + positional_embedding.slice(0, 0, length);  // [C, L, D]
  const torch::Tensor encoded = transformer(rows);
  const torch::Tensor index = prompts.eot.view({-1, 1, 1}).expand({-1, 1, encoded.size(2)});
  const torch::Tensor ends = encoded.gather(1, index).squeeze(1);  // [C, D]
  return at::matmul(ln_final(ends), text_projection);
}

}  // namespace clip_lora::model
