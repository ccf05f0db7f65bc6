// Linked into every test program with LibTorch, whose generator is otherwise seeded by chance: what a test
// draws is the same each time, in whatever order the tests run, and so is what is set up for a suite of them.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace clip_lora::testing {
namespace {

class SeedEachTest : public ::testing::EmptyTestEventListener {
  void OnTestSuiteStart(const ::testing::TestSuite& /*suite*/) override { at::manual_seed(1); }
  void OnTestStart(const ::testing::TestInfo& /*test*/) override { at::manual_seed(1); }
};

const bool kAdded = [] {
  ::testing::UnitTest::GetInstance()->listeners().Append(new SeedEachTest);  // GoogleTest deletes it
  return true;
}();

}  // namespace
}  // namespace clip_lora::testing
