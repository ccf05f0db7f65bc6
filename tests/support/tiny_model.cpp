#include "support/tiny_model.hpp"

#include <torch/torch.h>

#include "clip_lora/model/checkpoint.hpp"

namespace clip_lora::testing {

model::ClipArchitecture tiny_architecture() {
  return {.vision = {.width = 192, .layers = 3, .mlp_width = 768, .heads = 3},
          .text = {.width = 128, .layers = 4, .mlp_width = 512, .heads = 2},
          .patch_size_px = 8,
          .image_size_px = 24,
          .context_length = 77,
          .vocabulary = 500,
          .embedding = 48};
}

model::Clip random_clip(const model::ClipArchitecture& architecture) {
  model::Clip clip(architecture);
  model::initialise(clip);
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model::state_dict(clip)) {
    if (name.ends_with("bias") || name.find("ln_") != std::string::npos) {
      tensor.add_(at::randn(tensor.sizes(), tensor.options()), 0.1);
    }
  }
  return clip;
}

at::Tensor random_images(const model::ClipArchitecture& architecture, std::int64_t count) {
  return at::randn({count, 3, architecture.image_size_px, architecture.image_size_px});
}

std::vector<std::vector<std::int64_t>> random_prompt_rows(const model::ClipArchitecture& architecture,
                                                          const std::vector<std::int64_t>& ends) {
  std::vector<std::vector<std::int64_t>> rows;
  for (const auto end : ends) {
    auto ids = at::randint(1, architecture.vocabulary - 2, {architecture.context_length}, at::kLong);
    ids[0] = architecture.vocabulary - 2;
    ids[end] = architecture.vocabulary - 1;
    ids.slice(0, end + 1).zero_();
    rows.emplace_back(ids.data_ptr<std::int64_t>(), ids.data_ptr<std::int64_t>() + ids.numel());
  }
  return rows;
}

at::Tensor as_tensor(const std::vector<std::vector<std::int64_t>>& rows) {
  std::vector<at::Tensor> tensors;
  for (const auto& row : rows) tensors.push_back(torch::tensor(row, at::kLong));
  return at::stack(tensors);
}

lora::LoraOptions without_dropout() {
  lora::LoraOptions options;
  options.dropout = 0.0;
  return options;
}

lora::AdapterOptions of_lora(const lora::LoraOptions& options) {
  lora::AdapterOptions all;
  all.lora = options;
  return all;
}

void randomise(const lora::Adapter& adapter) {
  const at::NoGradGuard no_grad;
  for (const auto& tensor : adapter.parameters()) {
    const bool is_factor = tensor.numel() == 1;  // of a whole matrix: around 0 it would hide that
    tensor.normal_(is_factor ? 0.5 : 0.0, 0.05);
  }
}

void assign(const lora::Adapter& adapter, const io::StateDict& values) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : adapter.state_dict()) tensor.copy_(values.at(name));
}

io::StateDict snapshot(const io::StateDict& tensors) {
  io::StateDict copy;
  for (const auto& [name, tensor] : tensors) copy[name] = tensor.detach().clone();
  return copy;
}

OracleModel oracle_of(const model::Clip& clip, const lora::LoraAdapter& adapter) {
  return {snapshot(model::state_dict(clip)), snapshot(adapter.state_dict()),
          adapter.lora_options().scaling()};
}

OracleModel oracle_of(const model::Clip& clip) { return {snapshot(model::state_dict(clip)), {}, 0.0}; }

}  // namespace clip_lora::testing
