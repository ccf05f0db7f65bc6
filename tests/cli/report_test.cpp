#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

/// A run of the program whose results are reported.
class Report : public ::testing::Test {
 protected:
  void SetUp() override {
    const Outcome outcome = run_program(task_.arguments({{"--save_predictions", ""}}));
    ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  }

  Outcome report(std::vector<std::string> options = {}) const {
    options.insert(options.begin(), {"report", task_.save_path().string()});
    return run_program(options);
  }

  fs::path results_file() const { return task_.result_folder() / "results.json"; }
  json results() const { return json::parse(read_bytes(results_file())); }
  /// What stands in results.md below the line that explains it.
  std::string tables() const {
    const std::string text = made("results.md");
    return text.substr(text.find("\n## "));
  }
  std::string made(const std::string& file) const { return read_bytes(task_.save_path() / file); }

  /// Another result in the tree, with `text` as its results.json.
  fs::path add_result(const std::string& folder, const std::string& text) const {
    fs::create_directories(task_.save_path() / folder);
    write_bytes(task_.save_path() / folder / "results.json", text);
    return task_.save_path() / folder / "results.json";
  }

  const SmallTask task_;
};

TEST_F(Report, ResultsSayHowTheyWereMadeAndWhatTheyTook) {
  const json found = results();
  EXPECT_EQ(found["format"], 1);
  EXPECT_EQ(found["dataset"], "shapes");
  EXPECT_THAT(found["command"].get<std::string>(),
              AllOf(StartsWith("clip_lora --dataset shapes --root_path "), HasSubstr(" --shots 1 "),
                    HasSubstr(" --n_iters 4 "), HasSubstr(" --save_predictions")));
  EXPECT_EQ(found["memory"]["peak_gpu_bytes"], nullptr);
  EXPECT_GT(found["memory"]["peak_resident_bytes"], 50'000'000) << "LibTorch alone is more";
  EXPECT_EQ(found["zero_shot"]["per_class"].size(), found["per_class"].size());
  EXPECT_GT(found["zero_shot"]["confusion"].size(), 0U);
}

TEST_F(Report, PredictionsEndWithThoseOfTheUntouchedModel) {
  const std::string table = read_bytes(task_.result_folder() / "predictions.csv");
  const std::string header = table.substr(0, table.find('\n'));
  EXPECT_THAT(header, ::testing::EndsWith(",probability_5,zero_shot_predicted"));
}

TEST_F(Report, MakesATableAndAPageOfARun) {
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("read"), HasSubstr("1 run"));
  EXPECT_THAT(made("results.csv"), HasSubstr("small/shapes/1shots/seed1,shapes,small,1,1,"));
  EXPECT_THAT(made("results.md"), HasSubstr("| shapes |"));
  EXPECT_THAT(made("report.html"), AllOf(HasSubstr("data-value=\"" + results()["accuracy"].dump() + "\""),
                                         HasSubstr("Gains and losses by class"), HasSubstr("training loss")));
}

TEST_F(Report, GoesWhereOutSays) {
  ASSERT_EQ(report({"--out", (task_ / "made").string(), "--title", "Shapes & <colours>"}).exit_code, 0);
  EXPECT_THAT(read_bytes(task_ / "made/report.html"), HasSubstr("<h1>Shapes &amp; &lt;colours&gt;</h1>"));
  EXPECT_FALSE(fs::exists(task_.save_path() / "report.html"));
}

TEST_F(Report, RunsOfOtherWeightsAreVariantsWhateverTheirFilesAreCalled) {
  json other = results();
  const std::string fingerprint = "0123456789abcdef0123456789abcdef";
  other["fingerprint"] = fingerprint;
  other["settings"]["checkpoint"] = "weights/laion2b/model.safetensors";
  add_result("z", other.dump());
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("read"), AllOf(HasSubstr("2 runs"), Not(HasSubstr("skipped"))));
  EXPECT_THAT(made("results.md"), HasSubstr("checkpoint laion2b/model.safetensors (01234567)"));
  EXPECT_THAT(made("results.csv"), HasSubstr("," + fingerprint + ","));
}

TEST_F(Report, TheSameWeightsUnderAnotherNameAreOneVariant) {
  json other = results();
  other["settings"]["checkpoint"] = "elsewhere/renamed.safetensors";
  other["settings"]["seed"] = 2;
  add_result("z", other.dump());
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("results.md"), AllOf(HasSubstr("## small\n"), HasSubstr(" ± 0.00 |")));
}

TEST_F(Report, MethodsStandBesideEachOtherAndAreNeverAveraged) {
  json other = results();
  other["accuracy"] = 12.5;
  other["settings"]["seed"] = 2;  // which would be a second seed of the same cell
  other["settings"]["method"] = "r_adapter";
  other["settings"]["lr"] = 0.0005;  // the method's own default tells nothing apart
  add_result("z", other.dump());
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(tables(), AllOf(HasSubstr("## small, lora\n"), HasSubstr("## small, r_adapter\n"),
                              HasSubstr("### Methods side by side, small"), Not(HasSubstr("±"))));
  EXPECT_THAT(made("results.csv"), HasSubstr(",2,r_adapter,all,"));
}

TEST_F(Report, ResultsWithoutMethodAndScalesAreOfLora) {
  json old = results();
  old.erase("scales");
  for (const char* setting : {"method", "protocol", "eval_scale"}) old["settings"].erase(setting);
  write_bytes(results_file(), old.dump());
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("report.html"), AllOf(HasSubstr("<h3>small</h3>"), Not(HasSubstr("id=\"scales\""))));
  EXPECT_THAT(made("scales.csv"), HasSubstr(",lora,all,1,1,shapes,1.0,accuracy," + old["accuracy"].dump()));
}

TEST_F(Report, BaseToNewOfOneSeedHasItsHarmonicMeanAndNoSpread) {
  json of_halves = results();
  of_halves["settings"]["protocol"] = "base_to_new";
  of_halves["scales"] = {
      {{"eval_scale", 0.0}, {"accuracy", 40.0}, {"new_classes_accuracy", 60.0}, {"harmonic_mean", 48.0}},
      {{"eval_scale", 1.0}, {"accuracy", 80.0}, {"new_classes_accuracy", nullptr}}};
  write_bytes(results_file(), of_halves.dump());
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, HasSubstr("harmonic mean 48.00 → –")) << "the new classes are missing";
  EXPECT_THAT(tables(), AllOf(HasSubstr("60.00 | 48.00 |"), HasSubstr(" | – | – |"), Not(HasSubstr("±"))));
  EXPECT_THAT(made("report.html"), Not(HasSubstr("id=\"tables\"")))
      << "there are no accuracies on all classes";
}

TEST_F(Report, OtherDataSetsMayHaveAnyNameAndLackFigures) {
  const std::string name = "objects <of> & \"nets\" | \xc3\xa4";
  json shifted = results();
  shifted["settings"]["protocol"] = "robustness";
  shifted["other_datasets"] = {{{"dataset", name},
                                {"zero_shot_accuracy", 30.0},
                                {"scales", {{{"eval_scale", 1.0}, {"accuracy", 33.25}}}}},
                               {{"dataset", "unfinished"}, {"zero_shot_accuracy", nullptr}}};
  write_bytes(results_file(), shifted.dump());
  ASSERT_EQ(report().exit_code, 0);
  const std::string page = made("report.html");
  EXPECT_THAT(page, AllOf(HasSubstr("objects &lt;of&gt; &amp; &quot;nets&quot; | \xc3\xa4"),
                          HasSubstr(">33.25<"), HasSubstr("unfinished"), Not(HasSubstr("nan"))));
  EXPECT_THAT(made("results.md"), AllOf(HasSubstr("\\| \xc3\xa4 | 30.00 | 33.25 |"),
                                        HasSubstr("| **mean of the others** | – | – |")));
}

TEST_F(Report, AMeanOverOtherDataSetsIsNotMixedWithOneOverFewer) {
  const json untouched = results();
  const auto tested = [&](const std::vector<std::string>& names, int seed) {
    json run = untouched;
    run["settings"]["protocol"] = "cross_dataset";
    run["settings"]["seed"] = seed;
    for (const auto& name : names)
      run["other_datasets"].push_back({{"dataset", name}, {"zero_shot_accuracy", 30.0}});
    run["mean_of_others"] = {{"zero_shot_accuracy", 30.0}};
    return run.dump();
  };
  write_bytes(results_file(), tested({"dtd", "fgvc"}, 1));
  const fs::path second = add_result("z", tested({"dtd"}, 2));
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("results.md"), HasSubstr("| **mean of the others** | – (1 of 2 data sets) |"));
  write_bytes(second, tested({"dtd", "fgvc"}, 2));
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("results.md"), HasSubstr("| **mean of the others** | 30.00 |"));
}

TEST_F(Report, ARunThatWasDoneAgainIsNoCopy) {
  json again = results();
  again["seconds"]["training"] = 12345.0;
  add_result("z", again.dump());
  const Outcome outcome = report();
  EXPECT_THAT(outcome.line("read"), AllOf(HasSubstr("2 runs"), Not(HasSubstr("skipped"))));
  EXPECT_THAT(made("report.html"),
              AllOf(HasSubstr("1 run was done again"), HasSubstr("shapes, 1 shot, seed 1: 2 runs")));
}

TEST_F(Report, OtherPicturesOfTheSameNameAreAnotherDataSet) {
  json other = results();
  other["settings"]["dataset"] = "b/shapes";
  other["per_class"][0]["total"] = 77;
  add_result("z", other.dump());
  EXPECT_THAT(report().line("read"), HasSubstr("2 runs"));
  EXPECT_THAT(made("results.md"), AllOf(HasSubstr("| b/shapes |"), HasSubstr("| shapes |")));
}

TEST_F(Report, TimesAndSpeedOfAResumedRunAreThoseOfItsLastPart) {
  EXPECT_EQ(results()["training"]["resumed_from"], nullptr);
  json resumed = results();
  resumed["training"]["images_seen"] = 3000;
  resumed["training"]["resumed_from"] = {{"iteration", 3}, {"images", 2000}};
  resumed["seconds"]["training"] = 10.0;
  write_bytes(results_file(), resumed.dump());
  ASSERT_EQ(report().exit_code, 0);
  const std::string page = made("report.html");
  EXPECT_THAT(page, AllOf(HasSubstr("last part</span></td><td>100</td>"),
                          HasSubstr("; of 1 resumed run the last part")));
  EXPECT_THAT(made("results.csv"),
              AllOf(HasSubstr(",images_seen,resumed_from_iteration,resumed_from_images,"),
                    HasSubstr(",3000,3,2000,")));
}

TEST_F(Report, AnAverageThatLacksSeedsSaysSo) {
  json other = results();
  other["dataset"] = "second";
  add_result("second", other.dump());
  other["settings"]["seed"] = 2;
  add_result("second_2", other.dump());
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("small"), HasSubstr("(1 of 2 seeds)"));
  const std::string table = made("results.md");
  EXPECT_THAT(table.substr(table.find("| **average** |")), HasSubstr(" (1 of 2) |"));
  const std::string page = made("report.html");
  EXPECT_THAT(page.substr(page.find("<tr class=\"average\">")),
              HasSubstr("<span class=\"partial\">1 of 2 seeds</span>"));
  EXPECT_THAT(page, HasSubstr("(with gaps: 1 of 2 seeds)"));
}

TEST_F(Report, GoesOnAfterAFolderThatCannotBeRead) {
  const fs::path here = fs::current_path();
  fs::create_directories(task_.save_path() / "a");
  fs::current_path(task_.save_path() / "a");
  for (int depth = 0; depth < 20; ++depth) {  // deeper than a path may be long
    const std::string name(250, 'd');
    fs::create_directory(name);
    fs::current_path(name);
  }
  fs::current_path(here);
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.errors, HasSubstr("File name too long"));
  EXPECT_THAT(outcome.line("read"), HasSubstr("1 run, 1 skipped")) << "small/… comes after a/…";
}

TEST_F(Report, NamesSkipsAndCountsWhatItCannotRead) {
  const std::string whole = read_bytes(results_file());
  json other_version = results(), incomplete = results();
  other_version["format"] = 2;
  incomplete.erase("accuracy");
  json nameless = results();
  nameless["other_datasets"] = {{{"zero_shot_accuracy", 30.0}}};
  const fs::path unnamed = add_result("d", nameless.dump());
  const fs::path truncated = add_result("a", whole.substr(0, whole.size() / 2));
  const fs::path foreign = add_result("b", other_version.dump());
  const fs::path lacking = add_result("c", incomplete.dump());
  const fs::path copy = add_result("z", whole);
  const Outcome outcome = report();
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  for (const auto& file : {truncated, foreign, lacking, unnamed, copy})
    EXPECT_THAT(outcome.errors, HasSubstr("'" + file.string() + "'"));
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("format 2, expected 1"), HasSubstr("accuracy"), HasSubstr("the same run as")));
  EXPECT_THAT(outcome.line("read"), HasSubstr("1 run, 5 skipped"));
  EXPECT_THAT(made("report.html"), HasSubstr("5 files were skipped"));
}

TEST_F(Report, ShowsRunsOfASweepThatFailed) {
  fs::create_directories(task_.save_path() / "failed");
  write_bytes(task_.save_path() / "failed/error.json", R"({"run": "eurosat", "error": "no <picture>"})");
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("report.html"), AllOf(HasSubstr("1 run failed"), HasSubstr("failed: no &lt;picture&gt;")));
}

TEST_F(Report, WithNothingToReadIsAnErrorOfTheData) {
  write_bytes(results_file(), "{");
  const Outcome outcome = report();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("there are no results to report"));
  EXPECT_FALSE(fs::exists(task_.save_path() / "report.html"));
  EXPECT_EQ(run_program({"report", (task_ / "nowhere").string()}).exit_code, 3);
}

TEST_F(Report, ComparesWithFiguresOfOnesOwn) {
  const json figures = {{"name", "ours"},
                        {"backbone", "small"},
                        {"source", "S"},
                        {"url", ""},
                        {"note", "N"},
                        {"shots", {1}},
                        {"accuracy", {{"shapes", {12.5}}}},
                        {"average", json::array()},
                        {"zero_shot", json::object()},
                        {"zero_shot_average", nullptr}};
  const json document = {{"format", 1}, {"averaged_over", {"shapes"}}, {"figures", {figures}}};
  write_bytes(task_ / "published.json", document.dump());
  const std::string file = (task_ / "published.json").string();
  ASSERT_EQ(report({"--published", file}).exit_code, 0);
  EXPECT_THAT(made("results.md"), HasSubstr("ours | – | 12.5 |"));
  for (const int rank : {2, 32}) {
    json of_rank = document;
    of_rank["figures"][0]["settings"] = {{"r", rank}, {"params", {"q", "k", "v"}}};
    write_bytes(task_ / "published.json", of_rank.dump());
    ASSERT_EQ(report({"--published", file}).exit_code, 0);
    EXPECT_EQ(made("results.md").find("ours") != std::string::npos, rank == 2) << "the run's rank is 2";
  }
  write_bytes(task_ / "published.json", "{\"format\": 1}");
  const Outcome outcome = report({"--published", file});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("published figures '" + file + "'"));
}

TEST_F(Report, RefusesAFolderThatCannotBeWritten) {
  write_bytes(task_ / "file", "");
  const Outcome outcome = report({"--out", (task_ / "file").string()});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr((task_ / "file").string()));
}

TEST_F(Report, LivesWithoutMetricsAndPredictions) {
  fs::remove(task_.result_folder() / "metrics.jsonl");
  fs::remove(task_.result_folder() / "predictions.csv");
  ASSERT_EQ(report().exit_code, 0);
  EXPECT_THAT(made("report.html"), AllOf(Not(HasSubstr("training loss")), HasSubstr("--save_predictions")));
}

}  // namespace
}  // namespace clip_lora::testing
