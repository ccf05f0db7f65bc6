#include "golden/compute_cases.hpp"

#include <torch/torch.h>

#include "clip_lora/model/checkpoint.hpp"
#include "support/close.hpp"
#include "support/golden.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {

void GoldenTest::SetUp() {
  CLIP_LORA_NEEDS_TEST_DATA();
  if (!GetParam().device.is_cuda()) return;
  CLIP_LORA_NEEDS_GPU();
  // TensorFloat-32 keeps ten bits of a product's factors: not float32.
  at::globalContext().setAllowTF32CuBLAS(false);
  at::globalContext().setAllowTF32CuDNN(false);
}

at::Tensor GoldenTest::on_device(const at::Tensor& tensor) const {
  const auto moved = tensor.to(GetParam().device);
  return moved.is_floating_point() ? moved.to(GetParam().dtype) : moved;
}

::testing::AssertionResult GoldenTest::matches(const at::Tensor& actual, const at::Tensor& golden,
                                               double half_tolerance) const {
  return in_half() ? close_in_norm(actual, golden, half_tolerance) : close(actual, golden, 1e-4);
}

model::Clip GoldenTest::tiny_clip() const {
  auto clip = model::load_clip(golden_tensors("tiny_clip.safetensors"), "tiny_clip.safetensors");
  clip->to(GetParam().device, GetParam().dtype);
  return clip;
}

model::Prompts GoldenTest::tiny_prompts() const {
  const auto tokens = golden_tensors("tiny_forward.safetensors").at("tokens").to(at::kLong);
  std::vector<std::vector<std::int64_t>> rows;
  for (const auto& row : tokens.unbind()) {
    rows.emplace_back(row.data_ptr<std::int64_t>(), row.data_ptr<std::int64_t>() + row.numel());
  }
  return model::make_prompts(rows).to(GetParam().device);
}

}  // namespace clip_lora::testing
