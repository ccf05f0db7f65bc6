#include <gmock/gmock.h>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "support/miniature_benchmarks.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string name;
  FolderNames folder_names;
};

std::vector<Case> all_cases() {
  std::vector<Case> cases;
  for (const auto& name : miniature_names()) {
    for (const auto folder_names : {FolderNames::kCoop, FolderNames::kRelease})
      cases.push_back({name, folder_names});
  }
  return cases;
}

std::string case_name(const ::testing::TestParamInfo<Case>& info) {
  return info.param.name + (info.param.folder_names == FolderNames::kCoop ? "_by_coop" : "_by_the_release");
}

class Miniature : public ::testing::TestWithParam<Case> {};

TEST_P(Miniature, IsTrainedOnEvaluatedSavedAndReloaded) {
  const SmallTask task;
  const auto& [name, folder_names] = GetParam();
  write_miniature(task / "benchmarks", name, folder_names);
  const std::map<std::string, std::string> flags = {{"--dataset", name},
                                                    {"--root_path", (task / "benchmarks").string()},
                                                    {"--n_iters", "20"},
                                                    {"--lr", "2e-3"}};
  const Outcome trained = run_program(task.arguments(flags));
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  const int classes = miniature_classes(name, folder_names);
  EXPECT_THAT(trained.line(name),
              HasSubstr((classes == 1000 ? "1,000" : std::to_string(classes)) + " classes"));
  EXPECT_THAT(trained.line("training"), HasSubstr("20 iterations"));
  EXPECT_THAT(adapted(trained), HasSubstr("%"));
  EXPECT_TRUE(std::filesystem::exists(task.save_path() / "small" / name / "1shots/seed1/lora_weights.pt"));

  auto reloading = flags;
  reloading["--eval_only"] = "";
  const Outcome reloaded = run_program(task.arguments(reloading));
  ASSERT_EQ(reloaded.exit_code, 0) << reloaded.errors;
  EXPECT_EQ(adapted(reloaded), adapted(trained));
}

INSTANTIATE_TEST_SUITE_P(All, Miniature, ::testing::ValuesIn(all_cases()), case_name);

}  // namespace
}  // namespace clip_lora::testing
