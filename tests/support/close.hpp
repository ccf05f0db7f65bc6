#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

namespace clip_lora::testing {

/// Whether max|actual − expected| ≤ tolerance · max|expected| and the shapes agree. Says by how much and
/// where not.
::testing::AssertionResult close(const at::Tensor& actual, const at::Tensor& expected, double tolerance);

/// Whether ‖actual − expected‖ ≤ tolerance · ‖expected‖ and the shapes agree: for low precision, where single
/// entries are at the mercy of rounding.
::testing::AssertionResult close_in_norm(const at::Tensor& actual, const at::Tensor& expected,
                                         double tolerance);

/// Whether shapes, types and every bit agree.
::testing::AssertionResult identical(const at::Tensor& actual, const at::Tensor& expected);

}  // namespace clip_lora::testing
