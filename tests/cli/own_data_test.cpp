#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/program.hpp"
#include "cli/small_task.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::vector<std::string> with(std::vector<std::string> arguments, const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

json json_of(const fs::path& file) { return json::parse(read_bytes(file)); }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

/// The small task's pictures, 16 class folders of five, as a user may have them.
class OwnData : public ::testing::Test {
 protected:
  fs::path class_folders() const { return task_ / "data/shapes/images"; }
  fs::path results(const std::string& dataset, const std::string& shots = "1shots") const {
    return task_.save_path() / "small" / dataset / shots / "seed1";
  }
  json split_of(const std::string& benchmark_split) const {
    return json_of(task_.split_file()).at(benchmark_split);
  }

  /// Trains on `dataset`, which must go well.
  Outcome run(const fs::path& dataset, std::map<std::string, std::string> changes = {},
              const std::vector<std::string>& more = {}) const {
    changes["--dataset"] = dataset.string();
    Outcome outcome = run_program(with(task_.arguments(changes), more));
    EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
    return outcome;
  }

  /// The error stream of a run that must be refused.
  std::string refusal(const fs::path& dataset, int exit_code,
                      std::map<std::string, std::string> changes = {}) const {
    changes["--dataset"] = dataset.string();
    const Outcome outcome = run_program(task_.arguments(changes));
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.errors;
    EXPECT_EQ(outcome.line("zero-shot"), "");
    return outcome.errors;
  }

  /// The benchmark's split as folders, as a table and as a split file beside the images.
  fs::path split_folders() const {
    fs::path folder = task_ / "photos";
    for (const std::string split : {"train", "val", "test"}) {
      for (const auto& entry : split_of(split)) {
        const fs::path image = entry.at(0).get<std::string>();
        fs::create_directories(folder / split / image.parent_path());
        fs::copy_file(class_folders() / image, folder / split / image);
      }
    }
    return folder;
  }

  fs::path table() const {
    std::string text = "split,path,label\n";
    for (const std::string split : {"train", "val", "test"}) {
      for (const auto& entry : split_of(split)) {
        text += split + "," + entry.at(0).get<std::string>() + "," + entry.at(2).get<std::string>() + "\n";
      }
    }
    write_bytes(class_folders() / "table.csv", text);
    return class_folders() / "table.csv";
  }

  fs::path split_file() const {
    fs::copy_file(task_.split_file(), class_folders() / "mine.json");
    return class_folders() / "mine.json";
  }

  SmallTask task_;
};

TEST_F(OwnData, TheSameSplitAsFoldersTableOrJsonIsTheSameTaskAsTheBenchmark) {
  const Outcome benchmark = run("shapes", {{"--n_iters", "1"}});
  for (const fs::path& dataset : {split_folders(), table(), split_file()}) {
    const Outcome outcome = run(dataset, {{"--n_iters", "1"}});
    EXPECT_EQ(outcome.line("zero-shot"), benchmark.line("zero-shot")) << dataset;
    EXPECT_THAT(outcome.output,
                HasSubstr("16 classes   16 training images (1 shots, seed 1)   32 test images"));
    EXPECT_TRUE(fs::exists(results(dataset.stem().string()) / "results.json"))
        << "filed by the data's own name";
  }
  EXPECT_FALSE(fs::exists(task_.save_path() / "photos_split.json")) << "no split had to be made";
}

TEST_F(OwnData, ClassFoldersAreSplitOnceForAllRuns) {
  const fs::path kept = task_.save_path() / "images_split.json";
  const std::map<std::string, std::string> one = {{"--n_iters", "1"}, {"--save_predictions", ""}};
  run(class_folders(), one);
  const std::string split = read_bytes(kept);
  std::map<std::string, std::string> two = one;
  two["--seed"] = "2";
  run(class_folders().string() + "/", two);
  EXPECT_EQ(read_bytes(kept), split);

  const auto paths = [](const fs::path& predictions) {
    std::set<std::string> found;
    for (const auto& line : lines_of(read_bytes(predictions))) found.insert(line.substr(0, line.find(',')));
    return found;
  };
  const auto first = paths(results("images") / "predictions.csv");
  EXPECT_EQ(first.size(), json_of(kept).at("test").size() + 1) << "and the header";
  EXPECT_EQ(paths(task_.save_path() / "small/images/1shots/seed2/predictions.csv"), first);

  EXPECT_THAT(refusal(class_folders(), 2, {{"--test_fraction", "0.5"}}), HasSubstr("--test_fraction 0.5"));
}

TEST_F(OwnData, ResultsAreConsistentWithThePredictions) {
  const Outcome outcome = run(class_folders(), {{"--shots", "all"},
                                                {"--n_iters", "500"},
                                                {"--epochs", "2"},
                                                {"--batch_size", "16"},
                                                {"--class_weights", "balanced"},
                                                {"--eval_every", "2"},
                                                {"--select", "best"},
                                                {"--workers", "1"},
                                                {"--image_memory", "1"},
                                                {"--cache_dir", (task_ / "cache").string()},
                                                {"--save_predictions", ""}});
  const json found = json_of(results("images", "allshots") / "results.json");
  const json split = json_of(task_.save_path() / "images_split.json");
  const auto images = split.at("train").size();
  const auto iterations = 2 * ((images + 15) / 16);
  EXPECT_EQ(found["training"]["iterations"], iterations);
  EXPECT_EQ(found["training"]["images"], images);
  EXPECT_EQ(found["training"]["images_seen"], 2 * images);
  EXPECT_THAT(outcome.line("plan"), HasSubstr("2 epochs of " + std::to_string(images) + " images"));

  const json& looks = found["validation"];
  EXPECT_EQ(looks.size(), (iterations + 1) / 2) << "every second iteration, and the last";
  json best = looks.at(0);
  for (const auto& look : looks) {
    if (look["accuracy"] > best["accuracy"]) best = look;
  }
  EXPECT_EQ(found["training"]["selected_iteration"], best["iteration"]);
  EXPECT_NE(outcome.line("validation"), "");
  EXPECT_NE(outcome.line("selected"), "");

  std::int64_t total = 0;
  std::int64_t correct = 0;
  for (const auto& of_class : found["per_class"]) {
    total += of_class["total"].get<std::int64_t>();
    correct += of_class["correct"].get<std::int64_t>();
  }
  std::int64_t confusion_total = 0;
  std::int64_t diagonal = 0;
  for (const auto& entry : found["confusion"]) {
    confusion_total += entry.at(2).get<std::int64_t>();
    if (entry.at(0) == entry.at(1)) diagonal += entry.at(2).get<std::int64_t>();
  }
  EXPECT_EQ(total, split.at("test").size());
  EXPECT_EQ(confusion_total, total);
  EXPECT_EQ(diagonal, correct);
  EXPECT_DOUBLE_EQ(found["accuracy"], 100.0 * static_cast<double>(correct) / static_cast<double>(total));
  EXPECT_GE(found["top5_accuracy"], found["accuracy"]);
  EXPECT_EQ(found["zero_shot"]["accuracy"], found["zero_shot_accuracy"]);
  EXPECT_EQ(found["class_names"].size(), 16);
  EXPECT_EQ(found["templates"], json::array({"a photo of a {}."}));
  EXPECT_EQ(found["missing_images"], (json{{"test", 0}, {"train", 0}, {"val", 0}}));

  const auto rows = lines_of(read_bytes(results("images", "allshots") / "predictions.csv"));
  ASSERT_EQ(rows.size(), static_cast<std::size_t>(total) + 1);
  EXPECT_THAT(rows.front(), StartsWith("path,label,predicted,probability,predicted_2,probability_2,"));
  std::int64_t right = 0;
  for (std::size_t i = 1; i < rows.size(); ++i) {
    std::istringstream row(rows[i]);
    std::string path, label, predicted;
    std::getline(std::getline(std::getline(row, path, ','), label, ','), predicted, ',');
    EXPECT_EQ(fs::path(path).parent_path().filename(), label);
    right += label == predicted ? 1 : 0;
  }
  EXPECT_EQ(right, correct);

  EXPECT_FALSE(fs::is_empty(task_ / "cache"));
  const Outcome evaluated = run(class_folders(), {{"--shots", "all"},
                                                  {"--n_iters", "500"},
                                                  {"--cache_dir", (task_ / "cache").string()},
                                                  {"--eval_only", ""}});
  EXPECT_EQ(adapted(evaluated), adapted(outcome)) << "of the selected adapter, out of the cache";
}

TEST_F(OwnData, TemplatesAndClassNamesAreSavedWithTheAdapterAndObeyedByEvalOnly) {
  write_bytes(task_ / "names.txt", "circle: red disk\ncross: thick cross\n");
  write_bytes(task_ / "templates.txt", "a thermal picture of a {}.\na hot {}.\n");
  const std::map<std::string, std::string> names = {{"--class_names", (task_ / "names.txt").string()},
                                                    {"--lr", "0.05"}};
  auto trained_flags = names;
  trained_flags["--train_templates"] = "all";
  const Outcome trained = run(class_folders(), trained_flags,
                              {"--template", "a thermal picture of a {}.", "--template", "a hot {}."});
  const json found = json_of(results("images") / "results.json");
  EXPECT_EQ(found["templates"], json::array({"a thermal picture of a {}.", "a hot {}."}));
  EXPECT_THAT(found["class_names"].dump(), AllOf(HasSubstr("red disk"), HasSubstr("thick cross")));

  auto evaluation = names;
  evaluation["--eval_only"] = "";
  const Outcome evaluated = run(class_folders(), evaluation);
  EXPECT_EQ(adapted(evaluated), adapted(trained));
  EXPECT_EQ(evaluated.errors, "");

  evaluation.erase("--class_names");
  evaluation["--templates"] = (task_ / "templates.txt").string();
  const Outcome other_names = run(class_folders(), evaluation);
  EXPECT_THAT(other_names.errors, HasSubstr("class 1 was 'red disk', here 'circle'"));
}

TEST_F(OwnData, ZeroShotTemplatesAreForTheZeroShotLineAlone) {
  const Outcome plain = run("shapes");
  write_bytes(task_ / "same.txt", "a photo of a {}.\n");
  const Outcome same = run("shapes", {{"--zero_shot_templates", (task_ / "same.txt").string()}});
  EXPECT_EQ(same.line("zero-shot"), plain.line("zero-shot"));

  const auto untouched = [&] { return json_of(results("shapes") / "results.json").at("zero_shot"); };
  const std::vector<std::string> names = json_of(results("shapes") / "results.json").at("class_names");
  json descriptions, expected = json::array();
  for (std::size_t i = 0; i < names.size(); ++i)  // each class is told in the words of the next
    descriptions[names[i]] = {"a photo of a " + names[(i + 1) % names.size()] + "."};
  const json before = untouched();
  for (json entry : before.at("confusion")) {
    entry.at(1) = (entry.at(1).get<std::size_t>() + names.size() - 1) % names.size();
    expected.push_back(entry);
  }
  write_bytes(task_ / "descriptions.json", descriptions.dump());
  const Outcome moved = run("shapes", {{"--zero_shot_templates", (task_ / "descriptions.json").string()}});
  EXPECT_THAT(untouched().at("confusion"), ::testing::UnorderedElementsAreArray(expected));
  EXPECT_EQ(adapted(moved), adapted(plain));

  descriptions.erase("circle");
  write_bytes(task_ / "descriptions.json", descriptions.dump());
  EXPECT_THAT(refusal("shapes", 2, {{"--zero_shot_templates", (task_ / "descriptions.json").string()}}),
              HasSubstr("circle"));
}

TEST_F(OwnData, AdaptersKeepTheirPreprocessing) {
  const Outcome trained = run(class_folders(), {{"--resize_mode", "squash"}});
  const Outcome inspected =
      run_program({"inspect", (results("images") / "lora_weights.pt").string(), "--json"});
  EXPECT_THAT(inspected.output, AllOf(HasSubstr("\"squash\""), HasSubstr("\"exif\": true")))
      << "photos of one's own are turned";
  const Outcome evaluated = run(class_folders(), {{"--eval_only", ""}});
  EXPECT_EQ(adapted(evaluated), adapted(trained));
  EXPECT_EQ(evaluated.errors, "");
  for (const auto& [flag, value] : {std::pair("--resize_mode", "longest"), std::pair("--exif", "ignore")}) {
    EXPECT_THAT(run(class_folders(), {{"--eval_only", ""}, {flag, value}}).errors,
                HasSubstr("another preprocessing of images than --exif or --resize_mode ask for"));
  }
  EXPECT_EQ(
      run(class_folders(), {{"--eval_only", ""}, {"--resize_mode", "squash"}, {"--exif", "apply"}}).errors,
      "");
}

TEST_F(OwnData, MissingImagesAreLeftOutIfThatIsAllowedAndResultsSaySo) {
  fs::remove(task_.test_image());
  fs::remove(class_folders() / "circle/0.png");
  fs::remove(class_folders() / "circle/1.png");
  EXPECT_THAT(refusal("shapes", 3), HasSubstr("--allow_missing"));
  const Outcome outcome = run("shapes", {{"--shots", "3"}, {"--allow_missing", ""}});
  EXPECT_THAT(outcome.output, HasSubstr("missing    images left out: 1 of test, 3 of train"));
  const json found = json_of(results("shapes", "3shots") / "results.json");
  EXPECT_EQ(found["missing_images"], (json{{"test", 1}, {"train", 3}}));
  EXPECT_EQ(found["per_class"][0]["total"], 1) << "of two circles";
  EXPECT_THAT(found["warnings"].dump(), AllOf(HasSubstr("16 classes have fewer than 3 training images"),
                                              HasSubstr("no training image is there of circle")));
}

TEST_F(OwnData, MacroF1StandsBesideTheAccuracyOfImbalancedClasses) {
  write_bytes(class_folders() / "two.csv",
              "circle/0.png,round,train\ncross/0.png,crossed,train\ncross/1.png,crossed,test\n"
              "circle/1.png,round,test\ncircle/2.png,round,test\ncircle/3.png,round,test\n");
  const Outcome outcome = run(class_folders() / "two.csv");
  EXPECT_THAT(outcome.line("adapted"), HasSubstr("   macro-F1 0."));
  EXPECT_EQ(run("shapes").output.find("macro-F1"), std::string::npos);
}

TEST_F(OwnData, AnEvaluationKeepsNoSplitButUsesTheOneThatIsKept) {
  run(class_folders(), {{"--n_iters", "1"}, {"--test_fraction", "0.5"}});
  const fs::path kept = task_.save_path() / "images_split.json";
  const std::string split = read_bytes(kept);
  const Outcome kept_one = run(class_folders(), {{"--eval_only", ""}, {"--test_fraction", "0.5"}});
  EXPECT_EQ(read_bytes(kept), split);
  fs::remove(kept);
  const Outcome made_one = run(class_folders(), {{"--eval_only", ""}, {"--test_fraction", "0.5"}});
  EXPECT_FALSE(fs::exists(kept));
  EXPECT_EQ(adapted(made_one), adapted(kept_one)) << "of the same seed";
}

TEST_F(OwnData, WhatIsNoDataIsRefused) {
  EXPECT_THAT(refusal(task_ / "nowhere", 3), HasSubstr("there is no such folder"));
  EXPECT_THAT(refusal(class_folders(), 2, {{"--eval_every", "1"}, {"--val_fraction", "0"}}),
              HasSubstr("--eval_every 1: 'images' has no validation images"));
  EXPECT_THAT(refusal("shapes", 2, {{"--templates", (task_ / "none.txt").string()}}), HasSubstr("none.txt"));
}

}  // namespace
}  // namespace clip_lora::testing
