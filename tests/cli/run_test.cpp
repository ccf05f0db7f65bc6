#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::UnorderedElementsAre;

std::vector<std::string> keys(const json& object) {
  std::vector<std::string> names;
  for (const auto& [key, value] : object.items()) names.push_back(key);
  return names;
}

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder))
    names.push_back(file.path().filename());
  return names;
}

TEST(Run, TrainsAndSavesAdapterSettingsAndResultsWithTheDocumentedKeys) {
  const SmallTask task;
  const Outcome outcome = run_program(task.arguments());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(names_in(task.result_folder()),
              UnorderedElementsAre("lora_weights.pt", "config.json", "results.json", "metrics.jsonl"));

  const json results = json::parse(read_bytes(task.result_folder() / "results.json"));
  EXPECT_THAT(keys(results), IsSupersetOf({"zero_shot_accuracy", "accuracy", "seconds", "versions", "device",
                                           "adapter", "warnings", "settings"}))
      << "what has been there from the beginning stays";
  EXPECT_THAT(keys(results), IsSupersetOf({"top5_accuracy", "macro_f1", "expected_calibration_error",
                                           "zero_shot", "training", "validation", "missing_images",
                                           "templates", "class_names", "per_class", "confusion"}));
  EXPECT_EQ(results["warnings"], json::array()) << "the checkpoint's metadata say all that matters";
  EXPECT_THAT(keys(results["seconds"]),
              UnorderedElementsAre("load", "zero_shot", "training", "evaluation", "total"));
  EXPECT_EQ(results["adapter"], (task.result_folder() / "lora_weights.pt").string());
  EXPECT_THAT(results["device"].get<std::string>(), HasSubstr("cpu"));

  const json settings = json::parse(read_bytes(task.result_folder() / "config.json"));
  EXPECT_EQ(results["settings"], settings);
  EXPECT_EQ(settings["n_iters"], 4);
  EXPECT_EQ(settings["backbone"], "small");
  EXPECT_NE(outcome.line("worst"), "");
  EXPECT_THAT(outcome.line("confused"), HasSubstr(" taken for "));
}

TEST(Run, ThePrintedConfigurationServesAnyCheckpoint) {
  const SmallTask task;
  const Outcome printed = run_program({"--shots", "1", "--print_config"});
  ASSERT_EQ(printed.exit_code, 0) << printed.errors;
  write_bytes(task / "config.json", printed.output);
  const Outcome outcome =
      run_program(task.arguments({{"--config", (task / "config.json").string()}, {"--n_iters", "1"}}));
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
}

TEST(Run, EvalOnlyPrintsTheAccuracyOfTheTrainingRunAndChangesNoFile) {
  const SmallTask task;
  const Outcome trained = run_program(task.arguments());
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  const std::string results = read_bytes(task.result_folder() / "results.json");

  const Outcome evaluated = run_program(task.arguments({{"--eval_only", ""}}));
  ASSERT_EQ(evaluated.exit_code, 0) << evaluated.errors;
  EXPECT_THAT(adapted(evaluated), HasSubstr("%"));
  EXPECT_EQ(adapted(evaluated), adapted(trained));
  EXPECT_EQ(read_bytes(task.result_folder() / "results.json"), results);
}

TEST(Run, EvalOnlyRefusesEachMismatchByName) {
  const SmallTask task;
  ASSERT_EQ(run_program(task.arguments({{"--n_iters", "1"}})).exit_code, 0);
  const std::map<std::string, std::string> mismatches = {
      {"--r", "4"}, {"--alpha", "2"}, {"--encoder", "text"}, {"--params", "q v"}, {"--position", "top3"}};
  for (const auto& [flag, value] : mismatches) {
    const Outcome outcome = run_program(task.arguments({{"--eval_only", ""}, {flag, value}}));
    EXPECT_EQ(outcome.exit_code, 4) << flag;
    EXPECT_THAT(outcome.errors, HasSubstr("this run has " + flag + " " + value));
    EXPECT_THAT(outcome.errors, HasSubstr("lora_weights.pt"));
    EXPECT_EQ(outcome.line("adapted"), "");
  }
}

TEST(Run, EvalOnlyOfAnAdapterThatWasNeverSavedNamesTheFile) {
  const SmallTask task;
  const Outcome outcome = run_program(task.arguments({{"--eval_only", ""}}));
  EXPECT_EQ(outcome.exit_code, 4);
  EXPECT_THAT(outcome.errors, HasSubstr((task.result_folder() / "lora_weights.pt").string()));
}

TEST(Run, WithoutSavePathOnlyPrints) {
  const SmallTask task;
  std::vector<std::string> arguments = task.arguments({{"--save_path", "REMOVED"}});
  const auto flag = std::find(arguments.begin(), arguments.end(), "--save_path");
  arguments.erase(flag, flag + 2);
  arguments.emplace_back("--quiet");
  const Outcome outcome = run_program(arguments);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("zero-shot"), HasSubstr("%"));
  EXPECT_THAT(outcome.line("adapted"), HasSubstr("%"));
  EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 2)
      << "--quiet prints accuracies only";
  EXPECT_FALSE(std::filesystem::exists(task.save_path()));
}

TEST(Run, AnInterruptionInTrainingSaysWhatWasKeptAndLeavesNoAdapter) {
  const SmallTask task;
  Program program(task.arguments({{"--n_iters", "1000000"}}));
  ASSERT_TRUE(program.wait_for_output("zero-shot")) << program.wait().errors;
  program.send(SIGINT);
  const Outcome outcome = program.wait();
  EXPECT_EQ(outcome.exit_code, 128 + SIGINT);
  EXPECT_THAT(outcome.errors, HasSubstr("interrupted"));
  EXPECT_THAT(outcome.errors, HasSubstr("nothing was saved"));
  EXPECT_THAT(names_in(task.result_folder()), ElementsAre());
}

TEST(Run, AnInterruptionInTrainingLeavesEarlierResultsAsTheyWere) {
  const SmallTask task;
  ASSERT_EQ(run_program(task.arguments()).exit_code, 0);
  const std::string adapter = read_bytes(task.result_folder() / "lora_weights.pt");
  const std::string results = read_bytes(task.result_folder() / "results.json");

  Program program(task.arguments({{"--n_iters", "1000000"}}));
  ASSERT_TRUE(program.wait_for_output("zero-shot")) << program.wait().errors;
  program.send(SIGTERM);
  EXPECT_EQ(program.wait().exit_code, 128 + SIGTERM);
  EXPECT_EQ(read_bytes(task.result_folder() / "lora_weights.pt"), adapter);
  EXPECT_EQ(read_bytes(task.result_folder() / "results.json"), results);
}

}  // namespace
}  // namespace clip_lora::testing
