#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "clip_lora/data/coop_split.hpp"
#include "own_data.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

ClassFolder numbered(const std::string& name, int count) {
  ClassFolder folder{name, {}};
  for (int i = 0; i < count; ++i) folder.images.push_back(std::to_string(i));
  return folder;
}

std::vector<std::string> images_of(int label, const std::vector<Item>& items) {
  std::vector<std::string> images;
  for (const Item& item : items) {
    if (item.label == label) images.push_back(item.image);
  }
  return images;
}

/// Sizes of train, val and test of one class of `count` pictures.
std::vector<std::size_t> sizes(int count, double test_fraction, double val_fraction) {
  const Dataset dataset = split_class_folders("x", {numbered("c", count)}, {test_fraction, val_fraction, 1});
  return {dataset.train.size(), dataset.val.size(), dataset.test.size()};
}

TEST(SplitClassFolders, ShufflesAndCutsAsCpythonDoesWithTheSeed) {
  // random.seed(5); then for n in 2, 3, 7, 10: a shuffled list(range(n)), cut at round(n * 0.5) and
  // round(n * 0.2); of 3, CoOp's rounding leaves nothing for the test, which takes the one of val.
  const Dataset dataset = split_class_folders(
      "x", {numbered("a", 2), numbered("b_b", 3), numbered("c", 7), numbered("d", 10)}, {0.3, 0.2, 5});
  EXPECT_EQ(dataset.name, "x");
  EXPECT_THAT(dataset.class_names, ElementsAre("a", "b_b", "c", "d"));
  EXPECT_THAT(images_of(0, dataset.train), ElementsAre("0"));
  EXPECT_THAT(images_of(0, dataset.test), ElementsAre("1"));
  EXPECT_THAT(images_of(1, dataset.train), ElementsAre("0", "1"));
  EXPECT_THAT(images_of(1, dataset.test), ElementsAre("2"));
  EXPECT_THAT(images_of(2, dataset.train), ElementsAre("2", "3", "1", "0"));
  EXPECT_THAT(images_of(2, dataset.val), ElementsAre("4"));
  EXPECT_THAT(images_of(2, dataset.test), ElementsAre("5", "6"));
  EXPECT_THAT(images_of(3, dataset.train), ElementsAre("4", "9", "6", "5", "7"));
  EXPECT_THAT(images_of(3, dataset.val), ElementsAre("3", "8"));
  EXPECT_THAT(images_of(3, dataset.test), ElementsAre("1", "2", "0"));
}

TEST(SplitClassFolders, RoundsHalvesToEven) {
  EXPECT_THAT(sizes(5, 0.3, 0.2), ElementsAre(2, 1, 2));    // round(2.5)
  EXPECT_THAT(sizes(7, 0.3, 0.2), ElementsAre(4, 1, 2));    // round(3.5)
  EXPECT_THAT(sizes(10, 0.5, 0.25), ElementsAre(2, 2, 6));  // round(2.5) twice
}

TEST(SplitClassFolders, LeavesAtLeastOneInTrainAndInTest) {
  EXPECT_THAT(sizes(2, 0.3, 0.2), ElementsAre(1, 0, 1));
  EXPECT_THAT(sizes(3, 0.3, 0.2), ElementsAre(2, 0, 1));
  EXPECT_THAT(sizes(2, 0.98, 0.01), ElementsAre(1, 0, 1));
  EXPECT_THAT(sizes(4, 0.01, 0.0), ElementsAre(3, 0, 1));
  EXPECT_THAT(sizes(4, 0.01, 0.9), ElementsAre(1, 2, 1));
}

TEST(SplitClassFolders, RefusesAClassOfFewerThanTwo) {
  EXPECT_THAT(testing::message_of<DataError>([] { split_class_folders("x", {numbered("c", 1)}, {}); }),
              HasSubstr("class 'c' has 1 picture, expected at least 2"));
  EXPECT_THAT(testing::message_of<DataError>([] { split_class_folders("x", {numbered("c", 0)}, {}); }),
              HasSubstr("class 'c' has 0 pictures"));
}

TEST(SplitOptions, RefusesFractionsThatLeaveNothing) {
  const auto error_for = [](double test, double val) {
    return testing::message_of<ConfigError>([&] { SplitOptions{test, val, 1}.validate(); });
  };
  EXPECT_NO_THROW(SplitOptions{}.validate());
  EXPECT_NO_THROW((SplitOptions{0.9, 0.0, 1}.validate()));
  EXPECT_THAT(error_for(0.0, 0.2), HasSubstr("--test_fraction 0: expected above 0 and below 1"));
  EXPECT_THAT(error_for(1.0, 0.2), HasSubstr("--test_fraction 1: "));
  EXPECT_THAT(error_for(std::nan(""), 0.2), HasSubstr("--test_fraction nan: "));
  EXPECT_THAT(error_for(0.3, -0.1), HasSubstr("--val_fraction -0.1: expected at least 0 and below 1"));
  EXPECT_THAT(error_for(0.3, 0.7),
              HasSubstr("--test_fraction 0.3 and --val_fraction 0.7: expected a sum below 1"));
}

class WrittenSplit : public OwnData {};

TEST_F(WrittenSplit, IsReadAsItWasFromWhereverItLies) {
  write_class("red_dog", 4);
  write_class("größte Katze", 4);
  write("photos/red_dog/line\nbreak.jpg");
  const Dataset dataset = load();
  for (const auto* name : {"split.json", "photos/split.json", "results/a/split.json"}) {
    write_coop_split(path(name), dataset, path());
    const Dataset read = load(name);
    EXPECT_EQ(read.class_names, dataset.class_names);
    EXPECT_EQ(read.name, "split");
    // The paths differ ("results/a/../../photos/…"), the files do not.
    const auto same = [](const std::vector<Item>& ours, const std::vector<Item>& expected) {
      ASSERT_EQ(ours.size(), expected.size());
      for (std::size_t i = 0; i < ours.size(); ++i) {
        EXPECT_TRUE(fs::equivalent(ours[i].image, expected[i].image));
        EXPECT_EQ(ours[i].label, expected[i].label);
      }
    };
    same(read.train, dataset.train);
    same(read.val, dataset.val);
    same(read.test, dataset.test);
    // As CoOp reads it: with the folder of the images at hand.
    EXPECT_EQ(entries(read_coop_split("x", path(name), path()).train), entries(dataset.train));
  }
}

TEST_F(WrittenSplit, CannotHoldAPathThatIsNoUtf8) {
  write_class("cat", 2);
  write_class("dog", 2);
  write("photos/cat/\xFF.jpg");
  const Dataset dataset = load();
  EXPECT_THAT(testing::message_of<DataError>([&] { write_coop_split(path("split.json"), dataset, path()); }),
              HasSubstr("not valid UTF-8"));
  EXPECT_FALSE(fs::exists(path("split.json")));
}

class SavedSplit : public OwnData {
 protected:
  SavedSplit() {
    write_class("cat", 10);
    write_class("red_dog", 10);
    options_.saved_split = path("results/split.json");
  }

  nlohmann::json saved() const { return nlohmann::json::parse(testing::read_bytes(options_.saved_split)); }
};

TEST_F(SavedSplit, KeepsTheOptionsAndIsTakenByLaterRuns) {
  options_.split = {0.4, 0.1, 7};
  const Dataset made = load();
  EXPECT_EQ(saved()["test_fraction"], 0.4);
  EXPECT_EQ(saved()["val_fraction"], 0.1);
  EXPECT_EQ(saved()["seed"], 7);
  EXPECT_EQ(saved()["image_folder"], "../photos");
  // Another order than any seed gives: it is the file that counts.
  nlohmann::json changed = saved();
  std::reverse(changed["train"].begin(), changed["train"].end());
  write("results/split.json", changed.dump());
  const Dataset taken = load();
  auto reversed = entries(made.train);
  std::reverse(reversed.begin(), reversed.end());
  EXPECT_EQ(entries(taken.train), reversed);
  EXPECT_EQ(entries(taken.val), entries(made.val));
  EXPECT_EQ(entries(taken.test), entries(made.test));
  EXPECT_EQ(taken.class_names, made.class_names);
  EXPECT_THAT(taken.warnings, IsEmpty());
}

TEST_F(SavedSplit, IsNotMadeForDataWithASplit) {
  fs::rename(path(), path("train"));
  write_class("cat", 1, "photos/test");
  write_class("red_dog", 1, "photos/test");
  fs::rename(path("train"), path("photos/train"));
  load();
  EXPECT_FALSE(fs::exists(options_.saved_split));
}

TEST_F(SavedSplit, OfOtherOptionsIsRefused) {
  load();
  options_.split.test_fraction = 0.25;
  EXPECT_THAT(config_error(),
              AllOf(HasSubstr("was made with --test_fraction 0.3, this run has --test_fraction 0.25"),
                    HasSubstr("delete the file")));
  options_.split = {0.3, 0.1, 1};
  EXPECT_THAT(config_error(), HasSubstr("--val_fraction 0.2, this run has --val_fraction 0.1"));
  options_.split = {0.3, 0.2, 2};
  EXPECT_THAT(config_error(), HasSubstr("--split_seed 1, this run has --split_seed 2"));
}

TEST_F(SavedSplit, OfAnotherFolderIsRefused) {
  load();
  fs::create_directories(path("copy"));
  fs::copy(path(), path("copy"), fs::copy_options::recursive);
  EXPECT_THAT(data_error("copy"), AllOf(HasSubstr("it belongs to the folder"), HasSubstr(path().string()),
                                        HasSubstr("delete the file")));
}

TEST_F(SavedSplit, OfOtherClassesIsRefused) {
  load();
  write_class("fox", 3);
  EXPECT_THAT(data_error(), HasSubstr("made of other classes; new: 'fox' (hint"));
  fs::remove_all(path("photos/cat"));
  EXPECT_THAT(data_error(), HasSubstr("new: 'fox'; gone: 'cat'"));
}

TEST_F(SavedSplit, OfAnotherClassForAPictureIsRefused) {
  load();
  nlohmann::json changed = saved();
  changed["train"].push_back({"cat/0.jpg", 1, "red_dog"});
  write("results/split.json", changed.dump());
  EXPECT_THAT(data_error(), HasSubstr("cat/0.jpg' is of class 'red_dog' in it, but of 'cat' now"));
}

TEST_F(SavedSplit, NewPicturesAreLeftOutWithAWarningAndMissingOnesStay) {
  const Dataset made = load();
  write("photos/cat/new.jpg");
  write("photos/red_dog/new.jpg");
  fs::remove(made.test.front().image);
  const Dataset taken = load();
  EXPECT_EQ(entries(taken.train), entries(made.train));
  EXPECT_EQ(entries(taken.test), entries(made.test));
  EXPECT_THAT(taken.warnings, ElementsAre(HasSubstr("2 pictures are not in it and left out")));
}

TEST_F(SavedSplit, WhatIsNoKeptSplitIsRefused) {
  write("results/split.json", "{");
  EXPECT_THAT(data_error(), HasSubstr("it is not JSON"));
  fs::remove(options_.saved_split);
  OwnDatasetOptions plain;
  write_coop_split(options_.saved_split, load_own_dataset(path(), plain), path());
  EXPECT_THAT(data_error(), HasSubstr("it has no number under 'test_fraction'"));
}

TEST_F(SavedSplit, ATableIsSplitOnceToo) {
  std::string table = "path,label\n";
  for (int i = 0; i < 10; ++i) {
    for (const auto* name : {"cat", "red_dog"}) {
      table += std::string(name) + "/" + std::to_string(i) + ".jpg," + name + "\n";
    }
  }
  write("photos/table.csv", table);
  const Dataset made = load("photos/table.csv");
  EXPECT_EQ(saved()["image_folder"], "../photos");
  EXPECT_EQ(entries(made.train), entries(load().train))
      << "the same pictures as class folders give the same split";
  write("photos/table.csv", table.substr(0, table.rfind("cat/9")) + "cat/new.jpg,cat\n");
  const Dataset taken = load("photos/table.csv");
  EXPECT_EQ(taken.train.size() + taken.val.size() + taken.test.size(), 18U);
  EXPECT_THAT(taken.warnings, ElementsAre(HasSubstr("1 picture is not in it"),
                                          HasSubstr("2 of its pictures are no longer listed and left out")));
}

}  // namespace
}  // namespace clip_lora::data
