#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "cli/sweep_task.hpp"
#include "support/files.hpp"
#include "support/miniature_benchmarks.hpp"
#include "support/miniature_shifts.hpp"

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

using Flags = std::map<std::string, std::string>;

const std::vector<std::string> kShifts = {"imagenet_v2", "imagenet_r", "imagenet_sketch", "objectnet",
                                          "imagenet_a"};

/// A small run that tests on further data sets.
class Protocols : public ::testing::Test {
 protected:
  fs::path root() const { return task_ / "data"; }
  fs::path save_path() const { return task_.task().save_path(); }
  fs::path result_folder(const std::string& dataset) const {
    return save_path() / "small" / dataset / "1shots/seed1";
  }
  json results(const std::string& dataset) const {
    return json::parse(read_bytes(result_folder(dataset) / "results.json"));
  }

  /// A thousand classes, and the five shifts.
  void write_imagenet_and_shifts() const {
    write_miniature(root(), "imagenet", FolderNames::kRelease);
    for (const auto& shift : kShifts) write_shift_miniature(root(), shift);
  }
  void write_benchmarks() const {
    for (const auto& name : miniature_names()) write_miniature(root(), name, FolderNames::kCoop);
  }

  /// Of four iterations, unless the method trains nothing.
  Outcome run(const Flags& changes) const {
    std::vector<std::string> words = task_.task().arguments(changes);
    if (changes.contains("--method") && changes.at("--method") == "zero_shot") {
      for (const std::string flag : {"--n_iters", "--batch_size"}) {
        const auto at = std::find(words.begin(), words.end(), flag);
        words.erase(at, at + 2);
      }
    }
    return run_program(words);
  }

  /// What a method is trained by here: short, and of its own learning rate where there is one.
  static Flags of_method(const std::string& method) {
    Flags flags = {{"--method", method}};
    if (method == "r_adapter")
      flags.insert({{"--warmup", "0"}, {"--ema", "0"}, {"--lr", "0.05"}, {"--template", "{}"}});
    if (method == "lora") flags.insert({{"--lr", "0.05"}});
    if (method != "zero_shot") flags.insert({{"--eval_scale", "0.5 0"}});
    return flags;
  }

  /// Checks what a run has saved of `others` and printed, and that --eval_only gives the same.
  void expect_others(Flags flags, const std::string& dataset, const std::vector<std::string>& others) const {
    flags["--dataset"] = dataset;
    const Outcome trained = run(flags);
    ASSERT_EQ(trained.exit_code, 0) << trained.errors;
    const json saved = results(dataset);
    const bool is_trained = flags["--method"] != "zero_shot";
    ASSERT_EQ(saved["other_datasets"].size(), others.size());
    double sum = 0.0;
    for (std::size_t i = 0; i < others.size(); ++i) {
      const json& other = saved["other_datasets"][i];
      EXPECT_EQ(other["dataset"], others[i]);
      EXPECT_GT(other["images"], 0);
      const double untouched = other["zero_shot_accuracy"];
      EXPECT_GE(untouched, 0.0);
      EXPECT_LE(untouched, 100.0);
      sum += untouched;
      ASSERT_EQ(other["scales"].size(), is_trained ? 2U : 1U);
      EXPECT_EQ(other["scales"].back()["accuracy"], other["zero_shot_accuracy"])
          << others[i] << ": at scale 0, or without an adapter, nothing has changed";
      EXPECT_THAT(trained.line(others[i] + " "), AllOf(HasSubstr("zero-shot"), HasSubstr("adapted")));
    }
    const json& mean = saved["mean_of_others"];
    EXPECT_NEAR(mean["zero_shot_accuracy"].get<double>(), sum / static_cast<double>(others.size()), 1e-9);
    EXPECT_EQ(mean["scales"].size(), is_trained ? 2U : 1U);
    EXPECT_THAT(trained.line("mean of " + std::to_string(others.size())), HasSubstr("zero-shot"));

    flags["--eval_only"] = "";
    flags["--quiet"] = "";
    const Outcome evaluated = run(flags);
    ASSERT_EQ(evaluated.exit_code, 0) << evaluated.errors;
    for (const auto& other : others) {
      std::string line = evaluated.line(other + " ");
      EXPECT_THAT(line, Not(HasSubstr("zero-shot")));
      line = line.substr(line.find("adapted"));
      const std::string figure = line.substr(0, line.find('%') + 1);
      EXPECT_THAT(trained.line(other + " "), HasSubstr(figure)) << other;
    }
    EXPECT_EQ(count_lines(evaluated.output, ""), others.size() + (is_trained ? 4 : 2))
        << "accuracies alone: " << evaluated.output;
    EXPECT_EQ(results(dataset), saved) << "an evaluation writes nothing";
  }

  const SweepTask task_{};
};

std::string method_name(const ::testing::TestParamInfo<std::string>& tested) { return tested.param; }

class RobustnessOf : public Protocols, public ::testing::WithParamInterface<std::string> {};

TEST_P(RobustnessOf, IsReportedForEachShiftAndInTheMean) {
  write_imagenet_and_shifts();
  Flags flags = of_method(GetParam());
  flags["--protocol"] = "robustness";
  expect_others(flags, "imagenet", kShifts);
  const json others = results("imagenet")["other_datasets"];
  std::vector<int> classes, images;
  for (const json& other : others) {
    classes.push_back(other["classes"]);
    images.push_back(other["images"]);
  }
  EXPECT_THAT(classes, ElementsAre(1000, 200, 1000, 3, 200));
  EXPECT_THAT(images, ElementsAre(1000, 200, 1000, 3, 200));
}

INSTANTIATE_TEST_SUITE_P(Methods, RobustnessOf,
                         ::testing::Values("lora", "r_adapter", "lora_xs", "zero_shot"), method_name);

class CrossDatasetOf : public Protocols, public ::testing::WithParamInterface<std::string> {};

TEST_P(CrossDatasetOf, IsReportedForEachBenchmarkAndInTheMean) {
  write_benchmarks();
  std::vector<std::string> others = miniature_names();
  std::sort(others.begin(), others.end());
  Flags flags = of_method(GetParam());
  flags["--protocol"] = "cross_dataset";
  expect_others(flags, "shapes", others);
}

INSTANTIATE_TEST_SUITE_P(Methods, CrossDatasetOf,
                         ::testing::Values("lora", "r_adapter", "lora_xs", "zero_shot"), method_name);

class BaseToNewOf : public Protocols, public ::testing::WithParamInterface<std::string> {};

TEST_P(BaseToNewOf, IsReportedForEitherHalfOfTheClasses) {
  Flags flags = of_method(GetParam());
  flags["--protocol"] = "base_to_new";
  const Outcome trained = run(flags);
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  EXPECT_THAT(trained.line("shapes "), HasSubstr("8 classes   8 training images"));
  const json saved = results("shapes");
  EXPECT_THAT(saved["class_names"], SizeIs(8)) << "the base classes of 16";
  EXPECT_THAT(saved["per_class"], SizeIs(8));
  const json& scales = saved["scales"];
  ASSERT_THAT(scales, SizeIs(3)) << "the untouched model, 0.5 and 0";
  EXPECT_EQ(scales[2], scales[0]) << "at scale 0 nothing has changed";
  const double base = scales[1]["accuracy"], other = scales[1]["new_classes_accuracy"];
  const double expected = base + other > 0.0 ? 2.0 * base * other / (base + other) : 0.0;
  EXPECT_NEAR(scales[1]["harmonic_mean"].get<double>(), expected, 1e-9);

  flags["--eval_only"] = "";
  const Outcome evaluated = run(flags);
  EXPECT_EQ(evaluated.line("scale 0.50"), trained.line("scale 0.50")) << evaluated.errors;
  EXPECT_THAT(evaluated.line("scale 0.50"), HasSubstr("new classes"));
}

INSTANTIATE_TEST_SUITE_P(Methods, BaseToNewOf, ::testing::Values("lora", "r_adapter"), method_name);

TEST_F(Protocols, AShiftOfTheTestImagesThemselvesHasTheirAccuracy) {
  write_imagenet_and_shifts();
  const fs::path shift = root() / "imagenetv2-matched-frequency-format-val";
  fs::remove_all(shift);
  fs::create_directory(shift);
  for (int label = 0; label < 1000; ++label)
    fs::rename(root() / "imagenet/val" / miniature_wordnet_id(label), shift / std::to_string(label));
  for (int label = 0; label < 1000; ++label) {
    fs::create_directory_symlink(shift / std::to_string(label),
                                 root() / "imagenet/val" / miniature_wordnet_id(label));
  }
  ASSERT_EQ(run({{"--dataset", "imagenet"},
                 {"--protocol", "robustness"},
                 {"--lr", "0.05"},
                 {"--eval_scale", "1 0.5"}})
                .exit_code,
            0);
  const json found = results("imagenet");
  const json& v2 = found["other_datasets"][0];
  EXPECT_EQ(v2["images"], 2000);
  EXPECT_EQ(v2["zero_shot_accuracy"], found["zero_shot_accuracy"]);
  EXPECT_EQ(v2["scales"][0]["accuracy"], found["accuracy"]);
  EXPECT_EQ(v2["scales"][1]["accuracy"], found["scales"][2]["accuracy"]);
}

TEST_F(Protocols, AnotherBenchmarkHasTheAccuracyOfARunOnItInItsCustomaryPrompts) {
  write_benchmarks();
  const std::string adapter = (result_folder("shapes") / "lora_weights.pt").string();
  ASSERT_EQ(run({{"--protocol", "cross_dataset"}, {"--lr", "0.05"}}).exit_code, 0);
  const json crossed = results("shapes")["other_datasets"];
  const json& flowers = crossed[6];
  ASSERT_EQ(flowers["dataset"], "oxford_flowers");

  write_bytes(task_ / "customary.txt", "a photo of a {}, a type of flower.\n");
  const Flags alone = {{"--dataset", "oxford_flowers"}, {"--templates", (task_ / "customary.txt").string()}};
  Flags zero_shot = alone;
  zero_shot["--method"] = "zero_shot";
  ASSERT_EQ(run(zero_shot).exit_code, 0);
  EXPECT_EQ(results("oxford_flowers")["zero_shot_accuracy"], flowers["zero_shot_accuracy"]);

  Flags adapted = alone;
  adapted.insert({{"--adapter", adapter}, {"--eval_only", ""}});
  char figure[32];
  std::snprintf(figure, sizeof figure, "%.2f %%", flowers["scales"][0]["accuracy"].get<double>());
  EXPECT_THAT(run(adapted).line("adapted"), HasSubstr(figure));
}

TEST_F(Protocols, DataSetsThatAreMissingAreToldBeforeAnythingIsTrainedAndCanBeLeftOut) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  const Outcome refused = run({{"--protocol", "cross_dataset"}});
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, AllOf(HasSubstr("'eurosat'"), HasSubstr((root() / "Food101").string()),
                                    HasSubstr("--skip_missing leaves out caltech101")));
  EXPECT_EQ(refused.line("zero-shot"), "");
  EXPECT_FALSE(fs::exists(result_folder("shapes") / "lora_weights.pt"));

  const Outcome skipped = run({{"--protocol", "cross_dataset"}, {"--skip_missing", ""}});
  ASSERT_EQ(skipped.exit_code, 0) << skipped.errors;
  EXPECT_THAT(skipped.errors, HasSubstr("left out: data set 'eurosat'"));
  EXPECT_NE(skipped.line("mean of 1 "), "");
  const json found = results("shapes");
  EXPECT_THAT(found["other_datasets"], SizeIs(1));
  EXPECT_THAT(found["warnings"], SizeIs(10));
  EXPECT_EQ(found["settings"]["skip_missing"], true);
}

TEST_F(Protocols, AnAdapterOutlivesADataSetThatCannotBeDecoded) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  write_bytes(root() / "dtd/images/banded/banded_0003.jpg", "no picture");
  const Outcome outcome = run({{"--protocol", "cross_dataset"}, {"--skip_missing", ""}});
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors, AllOf(HasSubstr("dtd: "), HasSubstr("banded_0003.jpg")));
  EXPECT_NE(outcome.line("adapted"), "");
  EXPECT_TRUE(fs::exists(result_folder("shapes") / "lora_weights.pt"));
}

TEST_F(Protocols, ImagesThatAreMissingAreCountedByDataSet) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  fs::remove(root() / "dtd/images/banded/banded_0003.jpg");
  const Outcome outcome =
      run({{"--protocol", "cross_dataset"}, {"--skip_missing", ""}, {"--allow_missing", ""}});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("missing"), HasSubstr("1 of dtd"));
  EXPECT_EQ(results("shapes")["missing_images"], json({{"dtd", 1}, {"test", 0}, {"train", 0}}));
  EXPECT_EQ(results("shapes")["other_datasets"][0]["images"], 5);
}

TEST_F(Protocols, ACacheOfDecodedImagesServesEveryDataSet) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  write_miniature(root(), "fgvc", FolderNames::kCoop);
  Flags flags = {
      {"--protocol", "cross_dataset"}, {"--skip_missing", ""}, {"--cache_dir", (task_ / "cache").string()}};
  const Outcome trained = run(flags);
  ASSERT_EQ(trained.exit_code, 0) << trained.errors;
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(task_ / "cache"))
    files += entry.path().extension() == ".pixels" ? 1 : 0;
  EXPECT_EQ(files, 3U);
  flags["--verbose"] = "";
  const Outcome again = run(flags);
  EXPECT_THAT(again.errors, AllOf(HasSubstr("decoded images are read from"), Not(HasSubstr("were added"))));
  EXPECT_EQ(again.line("mean of 2"), trained.line("mean of 2"));
}

TEST_F(Protocols, PredictionsAreOfTheRunsOwnTestImages) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  ASSERT_EQ(
      run({{"--protocol", "cross_dataset"}, {"--skip_missing", ""}, {"--save_predictions", ""}}).exit_code,
      0);
  const std::string text = read_bytes(result_folder("shapes") / "predictions.csv");
  EXPECT_EQ(count_lines(text, ""), 1U + 32U) << "16 classes with two test images, and the heading";
  EXPECT_THAT(text, Not(HasSubstr("dtd")));
}

TEST_F(Protocols, RefuseWhatDoesNotGoTogether) {
  const std::vector<std::pair<Flags, std::string>> cases = {
      {{{"--protocol", "robustness"}}, "expected --dataset imagenet, got 'shapes'"},
      {{{"--protocol", "robustnes"}}, "did you mean 'robustness'"},
      {{{"--skip_missing", ""}}, "--skip_missing has no part in --protocol all"},
      {{{"--skip_missing", ""}, {"--protocol", "base_to_new"}}, "--skip_missing has no part"}};
  for (const auto& [flags, message] : cases) {
    const Outcome outcome = run(flags);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.errors, HasSubstr(message));
  }
  write_miniature(root(), "imagenet", FolderNames::kCoop);
  const Outcome small = run({{"--protocol", "robustness"}, {"--dataset", "imagenet"}});
  EXPECT_EQ(small.exit_code, 3);
  EXPECT_THAT(small.errors, AllOf(HasSubstr("has 3 classes"), HasSubstr("expected the 1,000")));
}

TEST_F(Protocols, AreSweptWithTheResultsOfSingleRuns) {
  write_benchmarks();
  const Flags sweep = {{"--protocol", "cross_dataset"}, {"--shots", "1"}, {"--lr", "0.05"}};
  const Outcome outcome = task_.run("swept", sweep);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.line("done "), HasSubstr("mean of 11: zero-shot"));
  EXPECT_THAT(finished_runs(task_ / "swept"),
              ElementsAre("small/shapes/1shots/seed1", "small/shapes/1shots/seed2"));
  EXPECT_THAT(task_.run("swept", sweep).line("finished"), HasSubstr("0 runs"));
  ASSERT_EQ(run({{"--protocol", "cross_dataset"},
                 {"--lr", "0.05"},
                 {"--seed", "2"},
                 {"--workers", "1"},
                 {"--save_path", (task_ / "single").string()}})
                .exit_code,
            0);
  const std::string run = "small/shapes/1shots/seed2";
  EXPECT_EQ(results_below(task_ / "swept").at(run), results_below(task_ / "single").at(run))
      << "what runs share changes nothing";
}

TEST_F(Protocols, OfASweepMayBeSeveral) {
  write_miniature(root(), "dtd", FolderNames::kCoop);
  write_bytes(task_ / "sweep.json", R"({"grid": {"protocol": ["base_to_new", "cross_dataset"]}})");
  const Flags sweep = {{"--config", (task_ / "sweep.json").string()}, {"--shots", "1"}, {"--seeds", "1"}};
  const Outcome refused = task_.run("swept", sweep);
  EXPECT_EQ(refused.exit_code, 3);
  EXPECT_THAT(refused.errors, HasSubstr("--skip_missing"));
  EXPECT_THAT(finished_runs(task_ / "swept"), IsEmpty());

  Flags skipping = sweep;
  skipping["--skip_missing"] = "";
  const Outcome outcome = task_.run("swept", skipping);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors << outcome.output;
  EXPECT_THAT(outcome.errors, HasSubstr("left out: data set 'eurosat'"));
  const auto runs = results_below(task_ / "swept");
  ASSERT_THAT(runs, SizeIs(2));
  for (const auto& [folder, result] : runs) {
    const bool is_crossed = folder.find("protocol-cross") != std::string::npos;
    EXPECT_EQ(result.results["settings"]["protocol"], is_crossed ? "cross_dataset" : "base_to_new") << folder;
    EXPECT_EQ(result.results.contains("mean_of_others"), is_crossed);
    EXPECT_EQ(result.results["scales"][0].contains("new_classes_accuracy"), !is_crossed);
  }
  EXPECT_THAT(task_.run("swept", skipping).line("finished"), HasSubstr("0 runs"));
}

TEST_F(Protocols, AllDataSetsOfASweepAreThoseOfItsProtocol) {
  const Outcome robustness = task_.run("swept", {{"--datasets", "all"}, {"--protocol", "robustness"}});
  EXPECT_EQ(robustness.exit_code, 3);
  EXPECT_THAT(robustness.errors, AllOf(HasSubstr("'imagenet': no folder"), Not(HasSubstr("eurosat"))));
  const Outcome retrieval = run_program({"sweep", "--datasets", "all", "--protocol", "retrieval",
                                         "--checkpoint", task_.task().checkpoint().string(), "--save_path",
                                         (task_ / "swept").string(), "--root_path", root().string()});
  EXPECT_EQ(retrieval.exit_code, 3);
  EXPECT_THAT(retrieval.errors, AllOf(HasSubstr("'coco'"), HasSubstr("'flickr30k'"), HasSubstr("'flickr8k'"),
                                      Not(HasSubstr("eurosat"))));
}

}  // namespace
}  // namespace clip_lora::testing
