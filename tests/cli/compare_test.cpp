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
using ::testing::Not;

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

  static json scale(double eval_scale, double accuracy) {
    return {{"eval_scale", eval_scale}, {"accuracy", accuracy}};
  }

  /// Merges `changes` into what a run has saved.
  void change(const std::string& name, const json& changes) const {
    json results = json::parse(read_bytes(folder(name) / "results.json"));
    results.merge_patch(changes);
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

TEST_F(Compare, ShowsWhatMethodsHaveInCommonAtEveryScale) {
  change("a", {{"settings", {{"eval_scale", {1.0, 0.5}}}},
               {"scales", {scale(0.0, 50.0), scale(1.0, 90.0), scale(0.5, 80.0)}}});
  change("b", {{"settings", {{"method", "r_adapter"}, {"eval_scale", {0.5}}}},
               {"scales", {scale(0.0, 50.0), scale(0.5, 92.0)}}});
  const Outcome outcome = compare();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("method      lora"), HasSubstr("r_adapter")));
  EXPECT_THAT(outcome.line("adapted"), HasSubstr("(+2.00)"));
  EXPECT_EQ(outcome.line("figures"), "figures    accuracy, α 0.5   80.00 %   92.00 %   (+12.00)");
}

TEST_F(Compare, DoesNotSetHalfOfTheClassesAgainstAll) {
  change("b", {{"settings", {{"protocol", "base_to_new"}}}});
  const Outcome outcome = compare();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("not alike"), HasSubstr("half of the classes"));
  EXPECT_THAT(outcome.line("adapted"), Not(HasSubstr("(")));
  const json answer = json::parse(compare({"--json"}).output);
  EXPECT_EQ(answer["figures"], json::array());
  EXPECT_EQ(answer["b"]["protocol"], "base_to_new");
}

TEST_F(Compare, ComparesOtherDataSetsThatBothWereTestedOn) {
  const auto other = [](const std::string& dataset, double before, double after) {
    return json{{"dataset", dataset}, {"zero_shot_accuracy", before}, {"scales", {scale(1.0, after)}}};
  };
  change("a", {{"other_datasets", {other("dtd", 44.0, 46.0), other("fgvc", 24.0, 23.0)}},
               {"mean_of_others", {{"zero_shot_accuracy", 34.0}, {"scales", {scale(1.0, 34.5)}}}}});
  change("b", {{"other_datasets", {other("dtd", 44.0, 47.5)}},
               {"mean_of_others", {{"zero_shot_accuracy", 44.0}, {"scales", {scale(1.0, 47.5)}}}}});
  const Outcome outcome = compare();
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("dtd   46.00 %   47.50 %   (+1.50)"), Not(HasSubstr("fgvc")),
                                    Not(HasSubstr("mean_of_others"))));
}

TEST_F(Compare, ComparesRecallWithRecallAlone) {
  const auto recalls = [](double at_1) {
    const json recall = {{"at_1", at_1}, {"at_5", 99.0}, {"at_10", 100.0}};
    return json{{"image_to_text", recall}, {"text_to_image", recall}};
  };
  json of_scale = recalls(88.0);
  of_scale["eval_scale"] = 1.0;
  const json retrieval = {
      {"images", 2}, {"captions", 10}, {"zero_shot", recalls(85.0)}, {"scales", {of_scale}}};
  change("a", {{"retrieval", retrieval}, {"settings", {{"protocol", "retrieval"}}}});
  EXPECT_THAT(compare().line("not alike"), HasSubstr("one run has recall"));
  change("b", {{"retrieval", retrieval}, {"settings", {{"protocol", "retrieval"}}}});
  const Outcome outcome = compare();
  EXPECT_THAT(outcome.output, AllOf(HasSubstr("text_to_image.at_1   88.00 %   88.00 %   (+0.00)"),
                                    Not(HasSubstr("adapted"))));
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
