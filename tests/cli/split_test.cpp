#include <gmock/gmock.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/program.hpp"
#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "support/files.hpp"

namespace clip_lora::testing {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// Two classes of ten pictures, which nothing opens.
class Split : public ::testing::Test {
 protected:
  Split() {
    for (const auto* name : {"cat", "red_dog"}) {
      fs::create_directories(photos() / name);
      for (int i = 0; i < 10; ++i) write_bytes(photos() / name / (std::to_string(i) + ".jpg"), "");
    }
  }

  fs::path photos() const { return folder_ / "photos"; }
  fs::path out() const { return folder_ / "split.json"; }

  Outcome split(const fs::path& source, std::vector<std::string> options = {}) const {
    options.insert(options.begin(), {"split", source.string(), "--out", out().string()});
    return run_program(options);
  }

  std::string error_of(const fs::path& source, int exit_code,
                       const std::vector<std::string>& options = {}) const {
    const Outcome outcome = split(source, options);
    EXPECT_EQ(outcome.exit_code, exit_code) << outcome.errors;
    EXPECT_EQ(outcome.output, "");
    return outcome.errors;
  }

  json written() const { return json::parse(read_bytes(out())); }

  TemporaryFolder folder_;
};

TEST_F(Split, WritesEveryPictureOnceAndSaysHowMany) {
  const Outcome outcome = split(photos());
  ASSERT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.output,
            "photos   2 classes   10 train   4 val   6 test images   " + out().string() + "\n");
  EXPECT_EQ(outcome.errors, "");
  std::set<std::string> paths;
  const json file = written();
  for (const auto* name : {"train", "val", "test"}) {
    for (const json& entry : file.at(name)) {
      EXPECT_TRUE(paths.insert(entry[0].get<std::string>()).second);
      EXPECT_TRUE(fs::exists(photos() / entry[0].get<std::string>()));
      EXPECT_EQ(entry[2], entry[1] == 0 ? "cat" : "red dog");
    }
  }
  EXPECT_EQ(paths.size(), 20U);
}

TEST_F(Split, IsReadByDatasetAndWithTheFolderAtHandAsCoopDoes) {
  ASSERT_EQ(split(photos(), {"--seed", "3"}).exit_code, 0);
  const auto ours = data::load_own_dataset(out(), {});
  const auto as_coop = data::read_coop_split("photos", out(), photos());
  ASSERT_EQ(ours.train.size(), as_coop.train.size());
  for (std::size_t i = 0; i < ours.train.size(); ++i) {
    EXPECT_TRUE(fs::equivalent(ours.train[i].image, as_coop.train[i].image));
  }
}

TEST_F(Split, OptionsDecideSizesNamesAndOrder) {
  write_bytes(folder_ / "names.txt", "red_dog: hound\n");
  const std::vector<std::string> options = {
      "--test_fraction", "0.5", "--val_fraction", "0", "--class_names", (folder_ / "names.txt").string(),
      "--force"};
  ASSERT_EQ(split(photos(), options).exit_code, 0);
  const json first = written();
  EXPECT_EQ(first["train"].size(), 10U);
  EXPECT_EQ(first["val"].size(), 0U);
  EXPECT_EQ(first["test"].size(), 10U);
  EXPECT_EQ(first["test"].back()[2], "hound");
  ASSERT_EQ(split(photos(), options).exit_code, 0);
  EXPECT_EQ(written(), first);
  auto other_seed = options;
  other_seed.insert(other_seed.end(), {"--seed", "2"});
  ASSERT_EQ(split(photos(), other_seed).exit_code, 0);
  EXPECT_NE(written(), first);
}

TEST_F(Split, TakesATableToo) {
  std::string table = "image,label,group\n";
  for (int i = 0; i < 8; ++i) {
    for (const auto* label : {"cat", "red_dog"}) {
      table += std::string(label) + "/" + std::to_string(i) + ".jpg," + label + ",g" + std::to_string(i / 2) +
               "\n";
    }
  }
  write_bytes(photos() / "table.csv", table);
  ASSERT_EQ(split(photos() / "table.csv").exit_code, 0);
  EXPECT_EQ(written()["image_folder"], "photos");
  std::map<std::string, std::set<std::string>> splits_of_pair;
  const json file = written();
  for (const auto* name : {"train", "val", "test"}) {
    for (const json& entry : file.at(name)) {
      const std::string picture = fs::path(entry[0].get<std::string>()).stem();
      splits_of_pair[std::to_string(std::stoi(picture) / 2)].insert(name);
    }
  }
  EXPECT_EQ(splits_of_pair.size(), 4U);
  for (const auto& [pair, splits] : splits_of_pair) EXPECT_EQ(splits.size(), 1U) << pair;
}

TEST_F(Split, ReplacesAFileOnlyIfForced) {
  write_bytes(out(), "mine");
  EXPECT_THAT(error_of(photos(), 2), AllOf(HasSubstr(out().string()), HasSubstr("--force")));
  EXPECT_EQ(read_bytes(out()), "mine");
  EXPECT_EQ(split(photos(), {"--force"}).exit_code, 0);
  EXPECT_TRUE(written().contains("train"));
}

TEST_F(Split, BadInputIsToldInOneLineAndNothingIsWritten) {
  const auto expect_one = [&](const std::string& errors, const std::string& part) {
    EXPECT_THAT(errors, HasSubstr(part));
    EXPECT_EQ(std::count(errors.begin(), errors.end(), '\n'), 1) << errors;
    EXPECT_FALSE(fs::exists(out()));
  };
  expect_one(error_of(folder_ / "missing", 3), "there is no such folder or file");
  expect_one(error_of(photos() / "cat", 3), "it has pictures, but no folders");
  expect_one(error_of(folder_ / "other.json", 2), "is a split already");
  expect_one(error_of(photos(), 2, {"--test_fraction", "1.5"}), "--test_fraction 1.5");
  expect_one(error_of(photos(), 2, {"--class_names", (folder_ / "none").string()}),
             "missing or cannot be read");
  expect_one(run_program({"split"}).errors, "DIR");
  expect_one(run_program({"split", photos().string()}).errors, "--out is missing");
  expect_one(run_program({"split", photos().string(), "--out", "split.txt"}).errors, "ends with .json");
  expect_one(error_of(photos(), 2, {"--test_fracton", "0.5"}), "did you mean '--test_fraction'");
}

}  // namespace
}  // namespace clip_lora::testing
