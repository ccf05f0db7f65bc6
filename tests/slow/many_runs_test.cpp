// Many runs, and what they leave in the process that does them.
#include <gmock/gmock.h>

#include <cmath>
#include <iostream>

#include "cli/sweep_task.hpp"

namespace clip_lora::testing {
namespace {

TEST(TwoHundredRunsInOneProcess, TakeTheMemoryOfTen) {
  constexpr int kRuns = 200;
  std::string seeds;
  for (int seed = 1; seed <= kRuns; ++seed) seeds += std::to_string(seed) + " ";
  const SweepTask task;
  const Outcome outcome = task.run(
      "results", {{"--shots", "1"}, {"--seeds", seeds}, {"--n_iters", "20"}, {"--eval_every", "10"}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const std::vector<double> bytes = memory_by_seed(task, kRuns, "peak_resident_bytes");
  for (const int run : {1, 10, 50, 100, 200})
    std::cout << "run " << run << ": " << bytes.at(static_cast<std::size_t>(run) - 1) / 1e6 << " MB\n";
  EXPECT_LE(std::abs(bytes.at(199) / bytes.at(9) - 1.0), 0.02);
}

}  // namespace
}  // namespace clip_lora::testing
