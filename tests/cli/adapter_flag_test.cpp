#include <ATen/ATen.h>
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "clip_lora/io/safetensors.hpp"
#include "clip_lora/io/torch_pickle.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::HasSubstr;

io::StateDict weights_of(const fs::path& adapter) {
  return io::nested_tensors(io::read_torch_archive(adapter).root.toGenericDict(), "");
}

/// A task with a trained adapter of rank 4.
class AdapterFlag : public ::testing::Test {
 protected:
  AdapterFlag() {
    trained_ = run_program(task_.arguments({{"--r", "4"}, {"--lr", "0.05"}, {"--n_iters", "20"}}));
    EXPECT_EQ(trained_.exit_code, 0) << trained_.errors;
    fs::rename(task_.save_path(), task_ / "first");
  }
  fs::path adapter() const { return task_ / "first/small/shapes/1shots/seed1/lora_weights.pt"; }

  Outcome run(std::map<std::string, std::string> flags) const {
    flags.emplace("--adapter", adapter().string());
    return run_program(task_.arguments(flags));
  }

  SmallTask task_;
  Outcome trained_;
};

TEST_F(AdapterFlag, EvalOnlyTakesRankAndPlacementFromTheFile) {
  const Outcome outcome = run({{"--eval_only", ""}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(adapted(outcome), adapted(trained_));
  EXPECT_FALSE(fs::exists(task_.save_path())) << "an evaluation saves nothing";
}

TEST_F(AdapterFlag, PredictionsStandBesideTheResultsOfTheirOwnAdapterAlone) {
  ASSERT_EQ(run_program(task_.arguments({{"--save_predictions", ""}})).exit_code, 0);
  const fs::path predictions = task_.result_folder() / "predictions.csv";
  const std::string before = read_bytes(predictions);
  const Outcome other = run({{"--eval_only", ""}, {"--save_predictions", ""}});
  EXPECT_EQ(other.exit_code, 2);
  EXPECT_THAT(other.errors,
              HasSubstr("results.json': they are of another adapter than '" + adapter().string()));
  EXPECT_THAT(other.errors, HasSubstr("another --save_path"));
  EXPECT_EQ(adapted(other), "");
  EXPECT_EQ(read_bytes(predictions), before);

  const std::string own = (task_.result_folder() / "lora_weights.pt").string();
  EXPECT_EQ(run({{"--eval_only", ""}, {"--save_predictions", ""}, {"--adapter", own}}).exit_code, 0);
  const fs::path elsewhere = task_ / "elsewhere";
  EXPECT_EQ(
      run({{"--eval_only", ""}, {"--save_predictions", ""}, {"--save_path", elsewhere.string()}}).exit_code,
      0);
  EXPECT_TRUE(fs::exists(elsewhere / "small/shapes/1shots/seed1/predictions.csv"));
}

TEST_F(AdapterFlag, FlagsThatAgreeWithTheFileAreTaken) {
  EXPECT_EQ(run({{"--eval_only", ""}, {"--r", "4"}, {"--params", "q k v"}}).exit_code, 0);
}

TEST_F(AdapterFlag, FlagsThatContradictTheFileAreRefusedByName) {
  const Outcome outcome = run({{"--r", "2"}});
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, HasSubstr("--r 4"));
  EXPECT_THAT(outcome.errors, HasSubstr("this run has --r 2"));
  EXPECT_EQ(outcome.line("zero-shot"), "");
}

TEST_F(AdapterFlag, TrainingGoesOnFromIt) {
  const Outcome outcome = run({{"--lr", "1e-12"}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  // Learning rates of at most 1e-6, where the cosine ends, leave the weights almost as they are; a fresh B is
  // 0.
  const auto begun = weights_of(adapter());
  const auto ended = weights_of(task_.result_folder() / "lora_weights.pt");
  ASSERT_EQ(ended.size(), begun.size());
  for (const auto& [name, tensor] : begun) {
    EXPECT_TRUE(at::allclose(ended.at(name), tensor, /*rtol=*/0, /*atol=*/1e-4)) << name;
    EXPECT_GT(tensor.abs().max().item<double>(), 1e-3) << name;
  }
  const json settings = json::parse(read_bytes(task_.result_folder() / "config.json"));
  EXPECT_EQ(settings["r"], 4);
  EXPECT_EQ(settings["adapter"], adapter().string());
}

TEST_F(AdapterFlag, AnAdapterOfAnotherBackboneOfTheSameShapesIsRefused) {
  const SmallTask other;
  const Outcome outcome = run({{"--checkpoint", other.checkpoint().string()}, {"--eval_only", ""}});
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, HasSubstr(adapter().string()));
  EXPECT_EQ(adapted(outcome), "");
}

TEST_F(AdapterFlag, AFileThatIsNoAdapterIsNamed) {
  const Outcome outcome = run({{"--adapter", task_.checkpoint().string()}, {"--eval_only", ""}});
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, HasSubstr(task_.checkpoint().string()));
}

TEST_F(AdapterFlag, OneOfAnotherFormatIsSavedAsSafetensorsWhichEvalOnlyFinds) {
  const fs::path peft = task_ / "peft";
  const Outcome exported = run_program({"export", "--checkpoint", task_.checkpoint().string(), "--adapter",
                                        adapter().string(), "--to", "peft", "--out", peft.string()});
  ASSERT_EQ(exported.exit_code, 0) << exported.errors;
  const Outcome outcome = run({{"--adapter", peft.string()}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_TRUE(fs::exists(task_.result_folder() / "lora_weights.safetensors"));
  const Outcome evaluated = run_program(task_.arguments({{"--eval_only", ""}, {"--r", "4"}}));
  EXPECT_EQ(evaluated.exit_code, 0) << evaluated.errors;
  EXPECT_EQ(adapted(evaluated), adapted(outcome));
}

TEST(Warnings, ACheckpointThatDoesNotNameItsActivationIsTakenAsQuickGeluWithAWarning) {
  const SmallTask task;
  io::write_safetensors(task.checkpoint(), io::read_safetensors(task.checkpoint()).tensors);
  const Outcome outcome = run_program(task.arguments({{"--n_iters", "1"}}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("--activation"));
  const json results = json::parse(read_bytes(task.result_folder() / "results.json"));
  ASSERT_FALSE(results["warnings"].empty());
  EXPECT_THAT(results["warnings"][0].get<std::string>(), HasSubstr("--activation"));

  const Outcome told = run_program(task.arguments({{"--n_iters", "1"}, {"--activation", "quick_gelu"}}));
  ASSERT_EQ(told.exit_code, 0) << told.errors;
  EXPECT_EQ(told.line("zero-shot"), outcome.line("zero-shot"));
}

}  // namespace
}  // namespace clip_lora::testing
