#include "own_data.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class OwnDataset : public OwnData {
 protected:
  OwnDataset() {
    for (const auto* name : {"n01", "n02_x", "n03"}) write_class(name, 2);
  }

  std::vector<std::string> named(const std::string& names) {
    write("names.txt", names);
    options_.class_names = path("names.txt");
    return load().class_names;
  }

  std::string naming_error(const std::string& names) {
    std::string message = testing::message_of<ConfigError>([&] { named(names); });
    EXPECT_THAT(message, HasSubstr("file of class names '" + path("names.txt").string() + "'"));
    return message;
  }
};

TEST_F(OwnDataset, IsToldFromABenchmarkByItsName) {
  EXPECT_TRUE(is_own_dataset(path().string()));
  EXPECT_TRUE(is_own_dataset("missing.csv"));
  EXPECT_TRUE(is_own_dataset("missing.JSON"));
  EXPECT_FALSE(is_own_dataset(path("missing").string()));
  EXPECT_FALSE(is_own_dataset("eurosat"));
  fs::create_directories(path("eurosat"));
  const fs::path before = fs::current_path();
  fs::current_path(folder_.path());
  EXPECT_FALSE(is_own_dataset("eurosat")) << "a benchmark's name, although there is a folder";
  EXPECT_TRUE(is_own_dataset("./eurosat"));
  EXPECT_EQ(own_dataset_name("."), folder_.path().filename());
  fs::current_path(before);
}

TEST_F(OwnDataset, IsCalledAsItsFolderOrFile) {
  EXPECT_EQ(own_dataset_name(path()), "photos");
  EXPECT_EQ(own_dataset_name(path("photos/")), "photos");
  EXPECT_EQ(own_dataset_name("a/../b/my data.csv"), "my data");
  fs::create_directories(path("photos.v2"));
  EXPECT_EQ(own_dataset_name(path("photos.v2")), "photos.v2");
}

TEST_F(OwnDataset, WhatIsMissingOrOfAnotherKindIsRefused) {
  EXPECT_THAT(data_error("missing"), HasSubstr("there is no such folder or file"));
  EXPECT_THAT(data_error("missing.csv"), HasSubstr("there is no such folder or file"));
  EXPECT_THAT(data_error(std::string(300, 'x')), HasSubstr("cannot be looked at: File name too long"));
  write("notes.txt");
  EXPECT_THAT(data_error("notes.txt"), HasSubstr("expected a folder, a .csv or a .json file"));
}

TEST_F(OwnDataset, FractionsAreChecked) {
  options_.split.test_fraction = 2;
  EXPECT_THAT(config_error(), HasSubstr("--test_fraction 2"));
}

TEST_F(OwnDataset, AListNamesTheClassesInTheOrderOfTheirFolders) {
  EXPECT_THAT(named("red fox\nblue_jay\nhen\n"), ElementsAre("red fox", "blue jay", "hen"));
  EXPECT_THAT(naming_error("red fox\nhen\n"),
              AllOf(HasSubstr("it has 2 names, expected 3"), HasSubstr("'n01', 'n02_x', 'n03'")));
}

TEST_F(OwnDataset, PairsNameSomeClassesAndTheOthersKeepTheirNames) {
  EXPECT_THAT(named("n03: hen\nn02_x: jay\n"), ElementsAre("n01", "jay", "hen"));
  EXPECT_THAT(named("n02 x: jay\n"), ElementsAre("n01", "jay", "n03"));
  EXPECT_THAT(naming_error("n03: hen\nn04x: jay\n"),
              AllOf(HasSubstr("'n04x' is no class of the data"), HasSubstr("did you mean 'n0")));
}

TEST_F(OwnDataset, ANameGivenTwiceIsWarnedOf) {
  named("hen\njay\nhen\n");
  EXPECT_THAT(load().warnings, ElementsAre(HasSubstr("'hen'")));
}

TEST_F(OwnDataset, NumbersForNamesAreWarnedOf) {
  EXPECT_THAT(load().warnings, IsEmpty());
  named("1\n2\n3\n");
  EXPECT_THAT(load().warnings, ElementsAre(HasSubstr("the class names are numbers")));
}

class OwnJson : public OwnData {
 protected:
  OwnJson() { write("photos/a/2.jpg"); }  // enough for what looks at nothing but the paths

  static constexpr auto kSplits = R"("train": [["a/1.jpg", 0, "a_b"], ["b/1.jpg", 1, "c"]],
                                     "test": [["a/2.jpg", 0, "a_b"], ["b/2.jpg", 1, "c"]]})";
};

TEST_F(OwnJson, PathsAreRelativeToItsFolderOrToTheOneItNames) {
  write("photos/split.json", std::string("{") + kSplits);
  const Dataset beside = load("photos/split.json");
  EXPECT_EQ(beside.name, "split");
  EXPECT_THAT(beside.class_names, ElementsAre("a b", "c"));
  EXPECT_THAT(entries(beside.train), ElementsAre("a/1.jpg 0", "b/1.jpg 1"));
  EXPECT_THAT(beside.val, IsEmpty());
  EXPECT_THAT(beside.warnings, IsEmpty());
  write("photos/split.json", std::string(R"({"image_folder": "pictures", )") + kSplits);
  write("photos/pictures/b/1.jpg");
  EXPECT_THAT(entries(load("photos/split.json").test),
              ElementsAre("pictures/a/2.jpg 0", "pictures/b/2.jpg 1"));
  write("photos/split.json", R"({"image_folder": ")" + path("far").string() + "\", " + kSplits);
  write("far/b/2.jpg");
  EXPECT_EQ(load("photos/split.json").test[0].image, path("far/a/2.jpg"));
}

TEST_F(OwnJson, OfWhichNoPictureIsThereSaysWhereItLooked) {
  write("elsewhere/split.json", std::string("{") + kSplits);
  EXPECT_THAT(data_error("elsewhere/split.json"),
              AllOf(HasSubstr("none of its pictures is there; the first was looked for at '" +
                              path("elsewhere/a/1.jpg").string() + "'"),
                    HasSubstr("relative to the folder under its key 'image_folder'")));
}

TEST_F(OwnJson, ItsClassesCanBeNamed) {
  write("photos/split.json", std::string("{") + kSplits);
  write("names.json", R"({"a_b": "red fox"})");
  options_.class_names = path("names.json");
  EXPECT_THAT(load("photos/split.json").class_names, ElementsAre("red fox", "c"));
}

TEST_F(OwnJson, WhatIsWrongInItIsRefused) {
  const auto error_for = [&](const std::string& text) {
    write("photos/split.json", text);
    return data_error("photos/split.json");
  };
  fs::remove_all(path("photos/a"));
  write("photos/a");
  EXPECT_THAT(error_for("{"), HasSubstr("it is not JSON"));
  EXPECT_THAT(error_for("{\"image_folder\": " + std::string(400000, '[')),
              HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error_for(R"({"image_folder": 3, )" + std::string(kSplits)),
              HasSubstr("'image_folder' is a JSON number, expected a folder's path"));
  EXPECT_THAT(error_for(R"({"train": [["a", 0, "x"], ["a", 2, "y"]], "test": [["b", 0, "x"]]})"),
              HasSubstr("expected labels without gaps"));
  EXPECT_THAT(error_for(R"({"train": [["a", 0, "x"]], "test": [["b", 0, "x"]]})"),
              HasSubstr("a single class, 'x'"));
  EXPECT_THAT(error_for(R"({"train": [["a", 0, "x"]], "test": [["b", 0, "x"], ["c", 1, "y"]]})"),
              HasSubstr("train has no pictures of 'y'"));
  EXPECT_THAT(error_for(R"({"train": [["a", 0, "x"]]})"), HasSubstr("no split 'test'"));
}

}  // namespace
}  // namespace clip_lora::data
