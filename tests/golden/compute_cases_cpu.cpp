#include <ATen/core/Tensor.h>

#include "golden/compute_cases.hpp"

namespace clip_lora::testing {

std::vector<ComputeCase> compute_cases() { return {{"cpu_fp32", at::kCPU, at::kFloat}}; }

}  // namespace clip_lora::testing
