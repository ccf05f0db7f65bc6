#include "golden/compute_cases.hpp"

namespace clip_lora::testing {

std::vector<ComputeCase> compute_cases() {
  const at::Device device(at::kCUDA, 0);
  return {{"cuda_fp32", device, at::kFloat}, {"cuda_fp16", device, at::kHalf}};
}

}  // namespace clip_lora::testing
