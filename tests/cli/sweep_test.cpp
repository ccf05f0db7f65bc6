#include <gmock/gmock.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/sweep_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

TEST(Sweep, DoesEachCombinationAndItsResultsAreThoseOfSingleRuns) {
  const SweepTask task;
  const Outcome outcome = task.run("results", {{"--r", "4"}, {"--save_predictions", ""}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(finished_runs(task / "results"),
              ElementsAre("small/shapes/1shots/seed1", "small/shapes/1shots/seed2",
                          "small/shapes/2shots/seed1", "small/shapes/2shots/seed2"));
  EXPECT_EQ(count_lines(outcome.output, "done "), 4U) << outcome.output;
  EXPECT_THAT(outcome.line("to do"), HasSubstr("4 runs   24 iterations"));
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());

  const Outcome single = run_program(task.task().arguments({{"--shots", "2"},
                                                            {"--seed", "2"},
                                                            {"--r", "4"},
                                                            {"--workers", "1"},
                                                            {"--save_predictions", ""},
                                                            {"--save_path", (task / "single").string()}}));
  ASSERT_EQ(single.exit_code, 0) << single.errors;
  const std::string run = "small/shapes/2shots/seed2";
  EXPECT_EQ(results_below(task / "results").at(run), results_below(task / "single").at(run))
      << "what runs share changes nothing";
  EXPECT_EQ(read_bytes(task / "results" / run / "predictions.csv"),
            read_bytes(task / "single" / run / "predictions.csv"));
}

TEST(Sweep, StartedAgainDoesOnlyWhatIsMissing) {
  const SweepTask task;
  ASSERT_EQ(task.run().exit_code, 0);
  const auto before = results_below(task / "results");
  const fs::path damaged = task / "results/small/shapes/1shots/seed1/results.json";
  write_bytes(damaged, "{\"format\": 1, \"accu");
  fs::remove(task / "results/small/shapes/2shots/seed2/results.json");
  const Outcome again = task.run("results", {{"--seeds", "1 2 3"}});
  ASSERT_EQ(again.exit_code, 0) << again.errors;
  EXPECT_EQ(count_lines(again.output, "done "), 5U) << "2 runs done before, 4 now: " << again.output;
  EXPECT_THAT(again.errors, HasSubstr(damaged.string())) << "what is damaged is named";
  EXPECT_THAT(finished_runs(task / "results"), SizeIs(6));
  for (const auto& [run, result] : before) EXPECT_EQ(results_below(task / "results").at(run), result) << run;

  const Outcome nothing = task.run("results", {{"--seeds", "1 2 3"}});
  EXPECT_EQ(nothing.exit_code, 0);
  EXPECT_THAT(nothing.line("finished"), HasSubstr("0 runs"));
}

TEST(Sweep, OtherSettingsUnderTheSamePathAreAnErrorThatShowsThemUnlessForced) {
  const SweepTask task;
  ASSERT_EQ(task.run().exit_code, 0);
  const auto before = results_below(task / "results");
  const Outcome refused = task.run("results", {{"--r", "4"}, {"--lr", "0.001"}});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("--r is 4, and was 2"));
  EXPECT_THAT(refused.errors, HasSubstr("--lr is 0.001, and was 0.0002"));
  EXPECT_THAT(refused.errors, HasSubstr("3 more like it"));
  EXPECT_EQ(results_below(task / "results"), before);

  EXPECT_EQ(
      task.run("results", {{"--workers", "2"}, {"--log_every", "1"}, {"--image_memory", "1"}}).exit_code, 0)
      << "of no consequence";

  const Outcome forced = task.run("results", {{"--r", "4"}, {"--lr", "0.001"}, {"--force", ""}});
  ASSERT_EQ(forced.exit_code, 0) << forced.errors;
  for (const auto& [run, result] : results_below(task / "results")) {
    EXPECT_EQ(result.results["settings"]["r"], 4);
    EXPECT_NE(result.adapter, before.at(run).adapter);
  }
}

TEST(Sweep, ResultsOfAnotherVersionAreRefused) {
  const SweepTask task;
  ASSERT_EQ(task.run("results", {{"--shots", "1"}, {"--seeds", "1"}}).exit_code, 0);
  const fs::path file = task / "results/small/shapes/1shots/seed1/results.json";
  json results = json::parse(read_bytes(file));
  results["format"] = 99;
  write_bytes(file, results.dump());
  const Outcome outcome = task.run();
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("another version of clip_lora"));
  EXPECT_THAT(outcome.errors, HasSubstr("format 99"));
}

TEST(Sweep, AGridVariesAnyFlagAndItsRunsHaveFoldersOfTheirOwn) {
  const SweepTask task;
  write_bytes(task / "sweep.json", R"({"seeds": [1], "shots": 1, "lr": 0.001,
      "grid": {"r": [2, 4], "params": [["q", "v"], ["o"]], "template": ["a {}.", "an image of {}, 1/2"]}})");
  auto arguments = task.arguments("results", {{"--config", (task / "sweep.json").string()}});
  for (const std::string flag : {"--shots", "--seeds"}) {
    const auto at = std::find(arguments.begin(), arguments.end(), flag);
    arguments.erase(at, at + 3);
  }
  const Outcome outcome = run_program(arguments);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  const auto runs = results_below(task / "results");
  EXPECT_THAT(runs, SizeIs(8));
  std::set<std::string> settings;
  for (const auto& [run, result] : runs) {
    const json& s = result.results["settings"];
    settings.insert(s["r"].dump() + s["params"].dump() + s["template"].dump());
    EXPECT_EQ(s["lr"], 0.001);
  }
  EXPECT_THAT(settings, SizeIs(8));
  EXPECT_THAT(runs.begin()->first, HasSubstr("1shots/params-o_r2_template-a"));
}

TEST(Sweep, FlagsOfAllRunsAreForThoseThatTakeThemAndForOneAtLeast) {
  const SweepTask task;
  write_bytes(task / "sweep.json",
              R"({"r": 4, "adapter_rank": 3, "grid": {"method": ["lora", "r_adapter"]}})");
  const std::string config = (task / "sweep.json").string();
  const Outcome printed =
      task.run("results", {{"--config", config}, {"--shots", "1"}, {"--seeds", "1"}, {"--print_runs", ""}});
  ASSERT_EQ(printed.exit_code, 0) << printed.errors;
  const auto line_end = printed.output.find('\n');
  const std::string lora = printed.output.substr(0, line_end), r_adapter = printed.output.substr(line_end);
  EXPECT_THAT(lora, AllOf(HasSubstr("--r 4"), Not(HasSubstr("--adapter_rank"))));
  EXPECT_THAT(r_adapter,
              AllOf(HasSubstr("--method r_adapter"), HasSubstr("--adapter_rank 3"), Not(HasSubstr("--r "))));

  const Outcome of_none = task.run("results", {{"--adapter_rank", "3"}});
  EXPECT_EQ(of_none.exit_code, 2);
  EXPECT_THAT(of_none.errors, HasSubstr("--adapter_rank has no part in --method lora"));
  write_bytes(task / "sweep.json", R"({"grid": {"method": ["lora", "r_adapter"], "r": [2, 4]}})");
  const Outcome in_grid = task.run("results", {{"--config", config}});
  EXPECT_EQ(in_grid.exit_code, 2);
  EXPECT_THAT(in_grid.errors, HasSubstr("--r has no part in --method r_adapter"));
}

TEST(Sweep, ThePrintedConfigurationIsTheSameSweep) {
  const SweepTask task;
  write_bytes(task / "sweep.json", R"({"lr": 0.001, "grid": {"method": ["lora", "r_adapter"]}})");
  const auto runs_of = [&](const fs::path& config) {
    const Outcome runs = task.run("results", {{"--config", config.string()}, {"--print_runs", ""}});
    EXPECT_EQ(runs.exit_code, 0) << runs.errors;
    return runs.output;
  };
  const Outcome printed =
      task.run("results", {{"--config", (task / "sweep.json").string()}, {"--print_config", ""}});
  ASSERT_EQ(printed.exit_code, 0) << printed.errors;
  write_bytes(task / "printed.json", printed.output);
  EXPECT_EQ(runs_of(task / "printed.json"), runs_of(task / "sweep.json"));
}

TEST(Sweep, BadGridsAreUsageErrorsThatNameTheKey) {
  const SweepTask task;
  std::string numbers = "[1";  // to 50, three times: 125,000 runs
  for (int i = 2; i <= 50; ++i) numbers += ", " + std::to_string(i);
  numbers += "]";
  const std::map<std::string, std::string> messages = {
      {R"({"grid": {"alhpa": [1]}})", "unknown key 'alhpa' (hint: did you mean 'alpha'?)"},
      {R"({"grid": {"r": []}})", "'r' has no values"},
      {R"({"grid": {"r": 4}})", "'r': expected an array"},
      {R"({"grid": {"r": [4, 4]}})", "{\"r\":4} twice"},
      {R"({"grid": {"seed": [4]}})", "unknown key 'seed'"},
      {R"({"grid": [1]})", "expected an object"},
      {R"({"grid": {"r": )" + numbers + R"(, "alpha": )" + numbers + R"(, "grad_clip": )" + numbers + "}}",
       "the sweep has more than 100000 runs"},
      {R"({"grid": {"r": ["four"]}})", "key 'r': expected a value of type INTEGER"},
      {R"({"grid": {"dropout_rate": [0, 2]}})", "dropout_rate"},
      {R"({"grid": {"r": [100000]}})", "--r 100000"},
      {R"({"grid": {"batch_size": [1, 2]}, "batch_size": 4})", "outside of it too"},
      {R"({"shots": []})", "--shots is empty"},
      {R"({"shot": [1]})", "unknown key 'shot' (hint: did you mean 'shots'?)"},
      {R"({"seeds": [1.5]})", "seeds"},
  };
  for (const auto& [config, message] : messages) {
    write_bytes(task / "sweep.json", config);
    auto arguments = task.arguments("results", {{"--config", (task / "sweep.json").string()}});
    for (const std::string flag : {"--shots", "--seeds"}) {
      const auto at = std::find(arguments.begin(), arguments.end(), flag);
      arguments.erase(at, at + 3);
    }
    const Outcome outcome = run_program(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << config << outcome.output;
    EXPECT_THAT(outcome.errors, HasSubstr(message));
    EXPECT_THAT(finished_runs(task / "results"), IsEmpty()) << "nothing has begun";
  }
}

TEST(Sweep, AMissingDataSetIsToldBeforeAnythingStartsAndCanBeLeftOut) {
  const SweepTask task;
  const Outcome refused = task.run("results", {{"--datasets", "shapes eurosat dtd"}});
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, HasSubstr("eurosat"));
  EXPECT_THAT(refused.errors, HasSubstr("dtd"));
  EXPECT_THAT(refused.errors, HasSubstr("--skip_missing"));
  EXPECT_THAT(finished_runs(task / "results"), IsEmpty());

  const Outcome skipped = task.run("results", {{"--datasets", "shapes eurosat dtd"}, {"--skip_missing", ""}});
  EXPECT_EQ(skipped.exit_code, 0) << skipped.errors;
  EXPECT_THAT(skipped.errors, HasSubstr("left out"));
  EXPECT_THAT(finished_runs(task / "results"), SizeIs(4));

  fs::remove(task.task().test_image());
  const Outcome image = task.run("others");
  EXPECT_EQ(image.exit_code, 3);
  EXPECT_THAT(image.errors, HasSubstr("circle/3.png"));
  const Outcome half = task.run("others", {{"--skip_missing", ""}});
  EXPECT_EQ(half.exit_code, 3) << "what is there by half is not left out";
  EXPECT_THAT(half.errors, HasSubstr("circle/3.png"));
  EXPECT_THAT(half.errors, Not(HasSubstr("no data set is left")));
  fs::remove_all(task.task().test_image().parent_path().parent_path());
  const Outcome pictureless = task.run("others", {{"--skip_missing", ""}});
  EXPECT_EQ(pictureless.exit_code, 3);
  EXPECT_THAT(pictureless.errors, HasSubstr("no data set is left"));
}

TEST(Sweep, AFailedRunIsRecordedAndTheOthersAreDone) {
  const SweepTask task;
  // Where the folder of one run ought to be made, there is a file.
  fs::create_directories(task / "results/small/shapes/2shots/seed1/lora_weights.pt/taken");
  const Outcome outcome = task.run();
  EXPECT_EQ(outcome.exit_code, 1);
  EXPECT_EQ(count_lines(outcome.output, "failed     shapes 2 shots seed 1"), 1U) << outcome.output;
  EXPECT_THAT(finished_runs(task / "results"), SizeIs(3));
  const json failure = json::parse(read_bytes(task / "results/small/shapes/2shots/seed1/error.json"));
  EXPECT_THAT(failure["error"].get<std::string>(), HasSubstr("lora_weights.pt"));

  fs::remove_all(task / "results/small/shapes/2shots/seed1/lora_weights.pt");
  EXPECT_EQ(task.run().exit_code, 0) << "it is tried again";
  EXPECT_THAT(finished_runs(task / "results"), SizeIs(4));
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty()) << "the record is gone";
}

TEST(Sweep, AFolderThatCannotBeWrittenIsToldBeforeAnythingStarts) {
  const SweepTask task;
  write_bytes(task / "file", "");
  const Outcome outcome = task.run("file/below");
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr((task / "file").string()));
}

TEST(Sweep, ASignalEndsItInOrderAndItGoesOnFromTheCheckpoint) {
  for (const int signal : {SIGTERM, SIGHUP, SIGINT}) {
    const SweepTask task;
    const std::map<std::string, std::string> slow = {{"--n_iters", "800"}, {"--checkpoint_every", "10000"}};
    Program program(task.arguments("results", slow));
    ASSERT_TRUE(program.wait_for_output("done ")) << program.wait().errors;
    const fs::path metrics = wait_for_metrics_under_way(task / "results");
    program.send(signal);
    const Outcome stopped = program.wait();
    EXPECT_EQ(stopped.exit_code, 128 + signal) << stopped.errors;
    EXPECT_THAT(stopped.errors, HasSubstr("interrupted after iteration"));
    EXPECT_THAT(stopped.errors, HasSubstr("the same command goes on"));
    EXPECT_THAT(leftovers_below(task / "results"), ElementsAre(HasSubstr("checkpoint.safetensors")))
        << "no lease, nothing half";
    if (signal != SIGTERM) continue;
    const std::string first = first_line(metrics);
    ASSERT_EQ(task.run("results", slow).exit_code, 0);
    EXPECT_EQ(first_line(metrics), first) << "the speed too: it went on, and did not begin anew";
    ASSERT_EQ(task.run("undisturbed", slow).exit_code, 0);
    EXPECT_EQ(results_below(task / "results"), results_below(task / "undisturbed"));
    EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());
  }
}

/// A sweep of one run that is stopped in its training.
class StoppedSweep {
 public:
  StoppedSweep() {
    Program program(task_.arguments("results", flags_));
    wait_for_metrics_under_way(task_ / "results");
    program.send(SIGTERM);
    program.wait();
  }

  Outcome go_on(const std::map<std::string, std::string>& changes = {}) const {
    auto flags = flags_;
    for (const auto& [flag, value] : changes) flags[flag] = value;
    return task_.run("results", flags);
  }

  fs::path checkpoint() const { return task_ / "results/small/shapes/1shots/seed1/checkpoint.safetensors"; }

 private:
  std::map<std::string, std::string> flags_ = {
      {"--shots", "1"}, {"--seeds", "1"}, {"--n_iters", "800"}, {"--checkpoint_every", "10000"}};
  SweepTask task_;
};

TEST(Sweep, ADamagedCheckpointCostsTheTrainingAndNoMore) {
  const StoppedSweep sweep;
  const std::string bytes = read_bytes(sweep.checkpoint());
  ASSERT_GT(bytes.size(), 1000U);
  write_bytes(sweep.checkpoint(), bytes.substr(0, 1000));
  const Outcome outcome = sweep.go_on();
  EXPECT_EQ(outcome.exit_code, 0) << outcome.output;
  EXPECT_THAT(outcome.line("anew"), HasSubstr(sweep.checkpoint().string()));
  EXPECT_FALSE(fs::exists(sweep.checkpoint()));
}

TEST(Sweep, ACheckpointOfOtherSettingsGoesByForceOnly) {
  const StoppedSweep sweep;
  const std::string bytes = read_bytes(sweep.checkpoint());
  const Outcome refused = sweep.go_on({{"--r", "4"}});
  EXPECT_EQ(refused.exit_code, 1);
  EXPECT_THAT(refused.line("failed "), HasSubstr("--r 2 (this run: 4)"));
  EXPECT_EQ(read_bytes(sweep.checkpoint()), bytes);
  EXPECT_EQ(sweep.go_on({{"--r", "4"}, {"--force", ""}}).exit_code, 0);
}

TEST(Sweep, OldResultsStayUntilThereAreNewOnes) {
  const SweepTask task;
  const std::map<std::string, std::string> one = {{"--shots", "1"}, {"--seeds", "1"}};
  ASSERT_EQ(task.run("results", one).exit_code, 0);
  const auto before = results_below(task / "results");
  auto slow = one;
  slow.insert({{"--r", "4"}, {"--force", ""}});
  slow["--n_iters"] = "100000";
  Program program(task.arguments("results", slow));
  const fs::path folder = task / "results/small/shapes/1shots/seed1";
  for (int i = 0; i < 600 && !fs::exists(folder / "metrics.jsonl.before"); ++i) usleep(100'000);
  program.send(SIGTERM);
  EXPECT_THAT(program.wait().errors, HasSubstr("interrupted after iteration"));
  EXPECT_EQ(results_below(task / "results"), before);
}

TEST(Sweep, PredictionsAreADifferenceOnlyWhereTheyAreWantedAndMissing) {
  const SweepTask task;
  const std::map<std::string, std::string> plain = {{"--shots", "1"}, {"--seeds", "1"}};
  auto predicting = plain;
  predicting["--save_predictions"] = "";
  ASSERT_EQ(task.run("results", predicting).exit_code, 0);
  EXPECT_THAT(task.run("results", plain).line("finished"), HasSubstr("0 runs"));
  fs::remove(task / "results/small/shapes/1shots/seed1/predictions.csv");
  const Outcome refused = task.run("results", predicting);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.errors, HasSubstr("predictions.csv' is missing"));
}

TEST(Sweep, ResumeIsAFlagOfItsRuns) {
  const SweepTask task;
  const Outcome printed = task.run("results", {{"--print_runs", ""}, {"--resume", ""}});
  EXPECT_THAT(printed.line(CLIP_LORA_PROGRAM), HasSubstr(" --resume"));
  EXPECT_THAT(task.run("results", {{"--print_runs", ""}}).line(CLIP_LORA_PROGRAM),
              Not(HasSubstr(" --resume")));
}

TEST(Sweep, SeveralProcessesShareTheRuns) {
  const SweepTask task;
  const Outcome outcome = task.run("results", {{"--processes", "2"}, {"--seeds", "1 2 3"}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors << outcome.output;
  EXPECT_EQ(count_lines(outcome.output, "done "), 6U) << outcome.output;
  EXPECT_THAT(outcome.line("finished"), HasSubstr("6 runs"));
  ASSERT_EQ(task.run("single", {{"--seeds", "1 2 3"}}).exit_code, 0);
  EXPECT_EQ(results_below(task / "results"), results_below(task / "single"));
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());
}

TEST(Sweep, ASignalReachesTheProcessesOfASweep) {
  const SweepTask task;
  Program program(task.arguments("results", {{"--processes", "2"}, {"--n_iters", "1000"}}));
  ASSERT_TRUE(program.wait_for_output("done ")) << program.wait().errors;
  program.send(SIGTERM);
  EXPECT_EQ(program.wait().exit_code, 128 + SIGTERM);
  EXPECT_THAT(leftovers_below(task / "results"), IsEmpty());
}

TEST(Sweep, GpusThatAreNotThereAreRefused) {
  const SweepTask task;
  const Outcome outcome = task.run("results", {{"--gpus", "0,1"}});
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("no CUDA device"));
}

TEST(Sweep, EveryShippedFileIsOne) {
  const SweepTask task;
  int files = 0;
  const std::string backbone = CLIP_LORA_SOURCE_DIR "/apps/demo_clip.safetensors";
  for (const auto& file : fs::directory_iterator(CLIP_LORA_SOURCE_DIR "/configs/sweeps")) {
    const Outcome outcome =
        run_program({"sweep", "--config", file.path().string(), "--root_path", (task / "none").string(),
                     "--save_path", (task / "results").string(), "--backbones", backbone});
    EXPECT_EQ(outcome.exit_code, 3) << file.path() << ": only the data are missing\n" << outcome.errors;
    EXPECT_THAT(outcome.errors, HasSubstr("stanford_cars"));
    ++files;
  }
  EXPECT_GE(files, 4);
}

TEST(Sweep, TheScriptForThePapersTablesRunsSweepsAndReportsThem) {
  const SweepTask task;
  const auto script = [&](const std::string& arguments) {
    return run_program({"-c", std::string("CLIP_LORA='") + CLIP_LORA_PROGRAM +
                                  "' " CLIP_LORA_SOURCE_DIR "/scripts/run_all.sh " + arguments},
                       "/bin/bash");
  };
  const std::string folders = (task / "data").string() + " " + (task / "out").string();
  const Outcome outcome = script(folders + " --only encoders --datasets shapes --backbones " +
                                 task.task().checkpoint().string() + " --shots 1 --seeds 1 --n_iters 2");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors << outcome.output;
  EXPECT_THAT(finished_runs(task / "out"), SizeIs(3));
  EXPECT_TRUE(fs::exists(task / "out/encoders/report.html"));
  const Outcome printed = script(folders + "/others --only encoders --datasets shapes --backbones " +
                                 task.task().checkpoint().string() + " --shots 1 --seeds 1 --print_runs");
  EXPECT_EQ(printed.exit_code, 0) << printed.errors;
  EXPECT_EQ(count_lines(printed.output, CLIP_LORA_PROGRAM), 3U) << printed.output;
  EXPECT_FALSE(fs::exists(task / "out/others/encoders/report.html"));
  EXPECT_EQ(script(folders + " --only nonsense").exit_code, 2);
  EXPECT_EQ(script((task / "data").string()).exit_code, 2);
}

TEST(Sweep, PartsAreDisjointAndMakeUpTheWhole) {
  const SweepTask task;
  for (const std::string part : {"0/3", "1/3", "2/3"}) {
    ASSERT_EQ(task.run("results", {{"--part", part}}).exit_code, 0);
  }
  EXPECT_THAT(finished_runs(task / "results"), SizeIs(4));
  EXPECT_THAT(task.run().line("finished"), HasSubstr("0 runs"));
  for (const std::string part : {"3/3", "1", "a/b", "1/0", "-1/2"}) {
    EXPECT_EQ(task.run("results", {{"--part=" + part, ""}}).exit_code, 2) << part;
  }
}

TEST(Sweep, PrintedRunsAreCommandsThatDoTheSame) {
  const SweepTask task;
  ASSERT_EQ(task.run("results", {{"--shots", "1"}, {"--template", "it's"}}).exit_code, 2)
      << "no place for the name";
  ASSERT_EQ(task.run("results", {{"--shots", "1"}}).exit_code, 0);
  EXPECT_EQ(
      task.run("results", {{"--print_runs", ""}, {"--device", "cuda"}, {"--precision", "fp16"}}).exit_code, 2)
      << "of other settings";
  EXPECT_EQ(
      task.run("others", {{"--print_runs", ""}, {"--device", "cuda"}, {"--precision", "fp16"}}).exit_code, 0)
      << "the machine that prints needs no GPU";
  const Outcome printed = task.run("results", {{"--print_runs", ""}});
  ASSERT_EQ(printed.exit_code, 0) << printed.errors;
  EXPECT_EQ(count_lines(printed.output, CLIP_LORA_PROGRAM), 2U) << "what is to be done: " << printed.output;
  write_bytes(task / "commands", printed.output);
  const Outcome xargs = run_program(
      {"-c", "export OMP_NUM_THREADS=1; xargs -P 2 -I{} sh -c '{}' < " + (task / "commands").string()},
      "/bin/sh");
  ASSERT_EQ(xargs.exit_code, 0) << xargs.errors;
  EXPECT_THAT(task.run().line("finished"), HasSubstr("0 runs")) << "the sweep knows them as its own";
}

}  // namespace
}  // namespace clip_lora::testing
