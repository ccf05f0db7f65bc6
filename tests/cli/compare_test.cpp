#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// Two runs of which only what a comparison reads is there.
class Compare : public ::testing::Test {
 protected:
  Compare() {
    write_run("a", {{"r", 2}, {"lr", 0.0002}}, 90.0);
    write_run("b", {{"r", 8}, {"lr", 0.0002}}, 92.0);
  }

  fs::path folder(const std::string& name) const { return folder_ / name; }

  void write_run(const std::string& name, json settings, double accuracy) const {
    fs::create_directories(folder(name));
    settings.update({{"backbone", "ViT-B/16"}, {"shots", 4}, {"seed", 1}});
    const json results = {{"format", 1},
                          {"command", "clip_lora"},
                          {"dataset", "eurosat"},
                          {"zero_shot_accuracy", 50.0},
                          {"accuracy", accuracy},
                          {"top5_accuracy", 99.0},
                          {"macro_f1", 0.9},
                          {"expected_calibration_error", 0.1},
                          {"training", {{"iterations", 1}, {"images", 1}, {"images_seen", 1}, {"loss", 0.1}}},
                          {"validation", json::array()},
                          {"seconds", {{"total", 1.0}}},
                          {"memory", {{"peak_gpu_bytes", nullptr}, {"peak_resident_bytes", 1}}},
                          {"versions", {{"clip_lora", "0.1.0"}}},
                          {"device", "cpu"},
                          {"warnings", json::array()},
                          {"settings", settings}};
    write_bytes(folder(name) / "results.json", results.dump());
  }

  /// A picture per letter: '+' is recognised, '-' is not.
  void write_predictions(const std::string& name, const std::string& right) const {
    std::string table = "path,label,predicted,probability\n";
    for (std::size_t i = 0; i < right.size(); ++i) {
      table += "pictures/" + std::to_string(i) + ".jpg,\"sea, or lake\"," +
               (right[i] == '+' ? "\"sea, or lake\"" : "river") + ",0.9\n";
    }
    write_bytes(folder(name) / "predictions.csv", table);
  }

  Outcome compare(std::vector<std::string> options = {}) const {
    options.insert(options.begin(),
                   {"compare", folder("a").string(), (folder("b") / "results.json").string()});
    return run_program(options);
  }

  TemporaryFolder folder_;
};

TEST_F(Compare, ShowsOnlyTheSettingsThatDiffer) {
  const Outcome outcome = compare();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.line("settings"), "settings   r  2  8");
  EXPECT_THAT(outcome.line("adapted"),
              AllOf(HasSubstr("90.00 %"), HasSubstr("92.00 %"), HasSubstr("(+2.00)")));
  EXPECT_THAT(outcome.line("unpaired"), HasSubstr("predictions.csv' is missing"));
}

TEST_F(Compare, TellsOtherWeights) {
  const fs::path file = folder("b") / "results.json";
  json of_others = json::parse(read_bytes(file));
  of_others["fingerprint"] = "0123";
  write_bytes(file, of_others.dump());
  const json answer = json::parse(compare({"--json"}).output);
  EXPECT_EQ(answer["settings"]["fingerprint"], json({"", "0123"}));
}

TEST_F(Compare, TestsPredictionsInPairs) {
  write_predictions("a", "+++---------------");
  write_predictions("b", "---++++++++++-----");
  const Outcome outcome = compare();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.line("pictures"),
            "pictures   18 in both: 0 right in both, 3 in A alone, 10 in B alone, 5 in neither");
  EXPECT_EQ(outcome.line("McNemar"), "McNemar    p = 0.0923   exact");  // 2 · P(X ≤ 3), X ~ Binomial(13, ½)
}

TEST_F(Compare, SaysTheSameAsJson) {
  write_predictions("a", std::string(15, '+') + std::string(35, '-') + std::string(50, '+'));
  write_predictions("b", std::string(15, '-') + std::string(35, '+') + std::string(50, '+'));
  const Outcome outcome = compare({"--json"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const json answer = json::parse(outcome.output);
  EXPECT_EQ(answer["settings"], json({{"r", {2, 8}}}));
  EXPECT_EQ(answer["a"]["accuracy"], 90.0);
  EXPECT_EQ(answer["paired"]["only_a"], 15);
  EXPECT_EQ(answer["paired"]["only_b"], 35);
  EXPECT_NEAR(answer["paired"]["statistic"].get<double>(), 7.22, 1e-12);
  EXPECT_NEAR(answer["paired"]["p_value"].get<double>(), 0.0072096, 1e-6);
  EXPECT_NEAR(answer["paired"]["difference"].get<double>(), 20.0, 1e-12);
}

TEST_F(Compare, CountsPicturesThatOneRunHasAlone) {
  write_predictions("a", "++");
  write_predictions("b", "+++++");
  EXPECT_THAT(compare().line("left out"), HasSubstr("3 pictures"));
}

TEST_F(Compare, RefusesPicturesOfAnotherClass) {
  write_predictions("a", "+");
  write_bytes(folder("b") / "predictions.csv",
              "path,label,predicted,probability\npictures/0.jpg,forest,river,0.9\n");
  const Outcome outcome = compare();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("pictures/0.jpg"), HasSubstr("forest")));
}

TEST_F(Compare, NamesBrokenPredictionsAndTheirLine) {
  write_predictions("a", "+");
  write_bytes(folder("b") / "predictions.csv", "path,label,predicted,probability\npictures/0.jpg,forest\n");
  const Outcome outcome = compare();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("b/predictions.csv"), HasSubstr("line 2")));
}

TEST_F(Compare, WantsTwoRunsThatAreThere) {
  EXPECT_EQ(run_program({"compare", folder("a").string()}).exit_code, 2);
  const Outcome outcome = run_program({"compare", folder("a").string(), folder("nowhere").string()});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("nowhere/results.json"));
}

}  // namespace
}  // namespace clip_lora::testing
