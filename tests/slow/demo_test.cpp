#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

TEST(Demo, AdaptationGainsAtLeast25Points) {
  const TemporaryFolder folder;
  const Outcome outcome = run_program({"demo", "--out", folder.path().string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const auto results = nlohmann::json::parse(
      read_bytes(folder.path() / "results" / "demo_clip" / "shapes" / "4shots" / "seed1" / "results.json"));
  // What the demo promises. Seeds 1 to 3 gained 33 to 36 points.
  EXPECT_GE(results.at("accuracy").get<double>() - results.at("zero_shot_accuracy").get<double>(), 25.0);
}

}  // namespace
}  // namespace clip_lora::testing
