#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "clip_lora/model/clip.hpp"

namespace clip_lora::testing {

/// Where and how precisely the goldens are computed anew.
struct ComputeCase {
  std::string name;
  at::Device device;
  at::ScalarType dtype;

  friend std::ostream& operator<<(std::ostream& stream, const ComputeCase& self) {
    return stream << self.name;
  }
};

/// The cases of this test program: one source file for the CPU, one for CUDA.
std::vector<ComputeCase> compute_cases();

/// Tolerances of the relative norm in float16, whose rounding a correct implementation cannot avoid.
inline constexpr double kHalfFeatures = 5e-3;
inline constexpr double kHalfGradients = 3e-2;

/// Skips without the goldens, or without the case's device.
class GoldenTest : public ::testing::TestWithParam<ComputeCase> {
 protected:
  void SetUp() override;

  bool in_half() const { return GetParam().dtype == at::kHalf; }
  /// On the case's device, and if floating of its type.
  at::Tensor on_device(const at::Tensor& tensor) const;
  /// float32: max|a − b| ≤ 1e-4 · max|golden|, five times what a correct implementation reaches. float16: by
  /// norm.
  ::testing::AssertionResult matches(const at::Tensor& actual, const at::Tensor& golden,
                                     double half_tolerance) const;

  /// tiny_clip in the case's type.
  model::Clip tiny_clip() const;
  /// The prompts of tiny_forward.
  model::Prompts tiny_prompts() const;
};

}  // namespace clip_lora::testing
