#pragma once

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace clip_lora::testing {

/// Whether a missing GPU is a failure (CLIP_LORA_REQUIRE_GPU, set by the test preset `cuda`).
inline bool gpu_required() { return std::getenv("CLIP_LORA_REQUIRE_GPU") != nullptr; }

}  // namespace clip_lora::testing

/// Skips the test where there is no CUDA device, or fails it where one is required.
#define CLIP_LORA_NEEDS_GPU()                                                            \
  if (!at::hasCUDA()) {                                                                  \
    if (clip_lora::testing::gpu_required()) {                                            \
      GTEST_FAIL() << "CLIP_LORA_REQUIRE_GPU is set and there is no usable CUDA device"; \
    }                                                                                    \
    GTEST_SKIP() << "there is no usable CUDA device";                                    \
  }                                                                                      \
  static_assert(true)
