#include <gmock/gmock.h>

#include "cli/sweep_task.hpp"
#include "support/gpu.hpp"

namespace clip_lora::testing {
namespace {

/// The program sees the GPUs that the tests of the command line hide.
Outcome run_on_gpu(const std::vector<std::string>& arguments) {
  const char* const visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::vector<std::string> words = {
      std::string("CUDA_VISIBLE_DEVICES=") + (visible == nullptr ? "0" : visible), CLIP_LORA_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  return run_program(words, kEnvironmentProgram);
}

TEST(SweepOnGpu, ItsResultsAreThoseOfSingleRunsBitForBit) {
  CLIP_LORA_NEEDS_GPU();
  const SweepTask task;
  const Outcome swept = run_on_gpu(task.arguments("results"));
  ASSERT_EQ(swept.exit_code, 0) << swept.errors;
  for (const std::string shots : {"1", "2"}) {
    for (const std::string seed : {"1", "2"}) {
      const Outcome single = run_on_gpu(task.task().arguments({{"--shots", shots},
                                                               {"--seed", seed},
                                                               {"--workers", "1"},
                                                               {"--save_path", (task / "single").string()}}));
      ASSERT_EQ(single.exit_code, 0) << single.errors;
    }
  }
  EXPECT_EQ(results_below(task / "results"), results_below(task / "single"));
}

TEST(SweepOnGpu, AProcessForEachGpuDoesTheSame) {
  CLIP_LORA_NEEDS_GPU();
  const SweepTask task;
  const Outcome swept = run_on_gpu(task.arguments("results", {{"--gpus", "all"}, {"--processes", "2"}}));
  ASSERT_EQ(swept.exit_code, 0) << swept.errors;
  EXPECT_EQ(count_lines(swept.output, "done       shapes"), 4U) << swept.output;
  ASSERT_EQ(run_on_gpu(task.arguments("single")).exit_code, 0);
  EXPECT_EQ(results_below(task / "results"), results_below(task / "single"));
}

TEST(SweepOnGpu, ManyRunsTakeTheMemoryOfFew) {
  CLIP_LORA_NEEDS_GPU();
  constexpr int kFew = 4, kMany = 40;
  std::string seeds;
  for (int seed = 1; seed <= kMany; ++seed) seeds += std::to_string(seed) + " ";
  const SweepTask task;
  const Outcome swept =
      run_on_gpu(task.arguments("results", {{"--shots", "1"}, {"--seeds", seeds}, {"--n_iters", "5"}}));
  ASSERT_EQ(swept.exit_code, 0) << swept.errors;
  for (const std::string key : {"peak_gpu_bytes", "peak_resident_bytes"}) {
    const std::vector<double> bytes = memory_by_seed(task, kMany, key);
    EXPECT_LE(bytes.at(kMany - 1), 1.02 * bytes.at(kFew - 1)) << key;
  }
}

}  // namespace
}  // namespace clip_lora::testing
