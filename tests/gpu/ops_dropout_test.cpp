#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "clip_lora/ops/dropout.hpp"
#include "support/close.hpp"
#include "support/gpu.hpp"
#include "support/mask_statistics.hpp"

namespace clip_lora::testing {
namespace {

class GpuMasks : public ::testing::TestWithParam<double> {};

TEST_P(GpuMasks, AreTheCpusBitForBit) {
  CLIP_LORA_NEEDS_GPU();
  const at::Tensor state = at::tensor({std::int64_t{1} << 40 | 5, std::int64_t{12}}, at::kLong);
  for (const std::int64_t width : {8, 27, 512, 768, 1280, 2051}) {
    const ops::Dropout on_cpu = {GetParam(), state, 6, 5, 1000},
                       on_gpu = {GetParam(), state.cuda(), 6, 5, 1000};
    EXPECT_TRUE(
        identical(ops::dropout_masks(on_gpu, 3, 77, width).cpu(), ops::dropout_masks(on_cpu, 3, 77, width)))
        << "width " << width;
  }
}

TEST_P(GpuMasks, HaveTheStatisticsOfIndependentDraws) {
  CLIP_LORA_NEEDS_GPU();
  expect_good_masks(GetParam(), at::kCUDA);
}

INSTANTIATE_TEST_SUITE_P(Rates, GpuMasks, ::testing::Values(0.25, 0.1, 0.5, 0.99));

}  // namespace
}  // namespace clip_lora::testing
