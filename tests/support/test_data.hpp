#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace clip_lora::testing {

/// The folder of reference numbers and data sets that CLIP_LORA_TEST_DATA names, or "" where it is unset.
inline std::filesystem::path test_data() {
  const char* folder = std::getenv("CLIP_LORA_TEST_DATA");
  return folder == nullptr ? "" : folder;
}

}  // namespace clip_lora::testing

/// Skips the test, saying so, where CLIP_LORA_TEST_DATA is unset. A test that must not go unnoticed begins
/// with it.
#define CLIP_LORA_NEEDS_TEST_DATA()                                                                          \
  if (clip_lora::testing::test_data().empty()) {                                                             \
    GTEST_SKIP() << "CLIP_LORA_TEST_DATA is unset: it names the folder with the reference numbers and data"; \
  }                                                                                                          \
  static_assert(true)
