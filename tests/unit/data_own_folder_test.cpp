#include <algorithm>

#include "own_data.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

class OwnFolder : public OwnData {
 protected:
  /// `photos/train` and `photos/test` of two classes.
  void write_two_splits() const {
    write_class("cat", 2, "photos/train");
    write_class("red_dog", 1, "photos/train");
    write_class("cat", 1, "photos/test");
    write_class("red_dog", 1, "photos/test");
  }
};

TEST_F(OwnFolder, TrainAndTestFoldersAreTakenAsTheyAre) {
  write_two_splits();
  const Dataset dataset = load();
  EXPECT_EQ(dataset.name, "photos");
  EXPECT_THAT(dataset.class_names, ElementsAre("cat", "red dog"));
  EXPECT_THAT(entries(dataset.train),
              ElementsAre("train/cat/0.jpg 0", "train/cat/1.jpg 0", "train/red_dog/0.jpg 1"));
  EXPECT_THAT(dataset.val, IsEmpty());
  EXPECT_THAT(entries(dataset.test), ElementsAre("test/cat/0.jpg 0", "test/red_dog/0.jpg 1"));
  EXPECT_THAT(dataset.warnings, IsEmpty());
}

TEST_F(OwnFolder, TheValidationFolderHasThreeNamesAndAnyCapitals) {
  for (const auto* name : {"val", "valid", "validation", "Val"}) {
    fs::remove_all(path());
    write_two_splits();
    write_class("red_dog", 1, std::string("photos/") + name);
    EXPECT_THAT(entries(load().val), ElementsAre(std::string(name) + "/red_dog/0.jpg 1"));
  }
  write_class("cat", 1, "photos/valid");
  EXPECT_THAT(data_error(), HasSubstr("'Val' and 'valid' stand for the same split"));
}

TEST_F(OwnFolder, ASplitFolderWithoutItsCounterpartIsRefused) {
  write_class("cat", 1, "photos/train");
  write_class("cat", 1, "photos/val");
  EXPECT_THAT(data_error(),
              AllOf(HasSubstr("it has 'train', but no 'test'"), HasSubstr("one folder per class")));
  fs::rename(path("photos/train"), path("photos/Test"));
  EXPECT_THAT(data_error(), HasSubstr("it has 'Test', but no 'train'"));
}

TEST_F(OwnFolder, AClassAmongOthersMayBeCalledTrainOrTest) {
  for (const auto* name : {"train", "Test"}) {
    fs::remove_all(path());
    for (const auto* one : {"car", "plane", name}) write_class(one, 2);
    EXPECT_THAT(load().class_names, UnorderedElementsAre("car", "plane", name));
  }
  write("photos/Test/by_year/1.jpg");
  EXPECT_THAT(data_error(), HasSubstr("it has 'Test', but no 'train'"))
      << "with folders in it, it is a split";
}

TEST_F(OwnFolder, ATestSplitWithoutPicturesIsRefused) {
  write_two_splits();
  fs::rename(path("photos/test/cat/0.jpg"), path("photos/test/cat/0"));
  fs::remove(path("photos/test/red_dog/0.jpg"));
  EXPECT_THAT(data_error(),
              AllOf(HasSubstr("own data '" + path("photos/test").string() + "': it has class folders"),
                    HasSubstr("but no pictures in them: its 1 file is of kinds that are not read "
                              "(no extension 1)")));
  fs::remove(path("photos/test/cat/0"));
  EXPECT_TRUE(data_error().ends_with("but no pictures in them"));
}

TEST_F(OwnFolder, ClassesThatTrainLacksAreNamed) {
  write_two_splits();
  write_class("fox", 1, "photos/test");
  write_class("hen", 1, "photos/val");
  EXPECT_THAT(data_error(), HasSubstr("train has no pictures of 'fox', 'hen'"));
}

TEST_F(OwnFolder, ClassesThatTestLacksAreWarnedOf) {
  write_two_splits();
  write_class("fox", 1, "photos/train");
  write_class("hen", 1, "photos/train");
  fs::create_directories(path("photos/test/hen"));
  EXPECT_THAT(load().warnings, ElementsAre(HasSubstr("without test images: 'fox', 'hen'")));
}

TEST_F(OwnFolder, WhatIsNoSplitBesideSplitsIsWarnedOf) {
  write_two_splits();
  write("photos/extra/1.jpg");
  write("photos/train/stray.jpg");
  EXPECT_THAT(load().warnings,
              ElementsAre(HasSubstr("1 picture lies in no class's folder"), HasSubstr("no split: 'extra'")));
}

TEST_F(OwnFolder, FractionsForDataWithASplitAreWarnedOf) {
  write_two_splits();
  options_.split.test_fraction = 0.4;
  EXPECT_THAT(load().warnings,
              ElementsAre(AllOf(HasSubstr("own data '" + path().string() + "'"),
                                HasSubstr("--test_fraction and --val_fraction play no part"))));
}

TEST_F(OwnFolder, ClassFoldersAreSplitAndEveryPictureIsInOneSplit) {
  write_class("red_dog", 10);
  write_class("cat", 10);
  write("photos/.DS_Store");
  write("photos/cat/._0.jpg");
  write("photos/.ipynb_checkpoints/0.jpg");
  const Dataset dataset = load("photos/");
  EXPECT_EQ(dataset.name, "photos");
  EXPECT_THAT(dataset.class_names, ElementsAre("cat", "red dog"));
  EXPECT_THAT(dataset.train, SizeIs(10));
  EXPECT_THAT(dataset.val, SizeIs(4));
  EXPECT_THAT(dataset.test, SizeIs(6));
  std::vector<std::string> all;
  for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
    for (const auto& entry : entries(*items)) all.push_back(entry);
  }
  std::sort(all.begin(), all.end());
  std::vector<std::string> expected;
  for (const auto* folder : {"cat", "red_dog"}) {
    for (int i = 0; i < 10; ++i) {
      expected.push_back(std::string(folder) + "/" + std::to_string(i) + ".jpg " +
                         (folder[0] == 'c' ? "0" : "1"));
    }
  }
  EXPECT_EQ(all, expected);
  EXPECT_THAT(dataset.warnings, IsEmpty());
}

TEST_F(OwnFolder, NamesWithSpacesUnicodeAndNewlinesWork) {
  write("photos/größte Katze/a b.JPG");
  write("photos/größte Katze/line\nbreak.jpg");
  write_class("犬", 2);
  const Dataset dataset = load();
  EXPECT_THAT(dataset.class_names, ElementsAre("größte Katze", "犬"));
  std::vector<std::string> all = entries(dataset.train);
  for (const auto& entry : entries(dataset.test)) all.push_back(entry);
  EXPECT_THAT(all, UnorderedElementsAre("größte Katze/a b.JPG 0", "größte Katze/line\nbreak.jpg 0",
                                        "犬/0.jpg 1", "犬/1.jpg 1"));
}

TEST_F(OwnFolder, AFolderWithoutClassFoldersIsRefused) {
  fs::create_directories(path());
  EXPECT_THAT(data_error(), AllOf(HasSubstr("it has no folders"), HasSubstr("one folder per class")));
  write("photos/1.jpg");
  EXPECT_THAT(data_error(), AllOf(HasSubstr("it has pictures, but no folders"),
                                  HasSubstr("expected one folder per class, or 'train'")));
  write("photos/train/1.jpg");
  write("photos/test/1.jpg");
  EXPECT_THAT(data_error(), AllOf(HasSubstr("photos/train'"), HasSubstr("it has pictures, but no folders")));
}

TEST_F(OwnFolder, PicturesBesideClassFoldersAreWarnedOf) {
  write_class("cat", 2);
  write_class("dog", 2);
  write("photos/1.jpg");
  write("photos/notes.txt");
  EXPECT_THAT(load().warnings, ElementsAre(HasSubstr("1 picture lies in no class's folder and is left out")));
}

TEST_F(OwnFolder, ASingleClassIsRefusedWithTheFolderThatMayHaveBeenMeant) {
  write_class("cat", 2, "photos/images");
  write_class("dog", 2, "photos/images");
  EXPECT_THAT(data_error(), AllOf(HasSubstr("a single class, 'images', expected at least two"),
                                  HasSubstr("give '" + path("photos/images").string() + "'")));
  fs::remove_all(path());
  write_class("cat", 1, "photos/train");
  write_class("cat", 1, "photos/test");
  EXPECT_THAT(data_error(), HasSubstr("a single class, 'cat', expected at least two"));
}

TEST_F(OwnFolder, AClassWithoutPicturesIsRefusedWithWhatItHasInstead) {
  write_class("cat", 2);
  fs::create_directories(path("photos/dog"));
  EXPECT_THAT(data_error(), HasSubstr("class 'dog' has no pictures (hint: add some, or remove the folder)"));
  write("photos/dog/1.HEIC");
  write("photos/dog/more/2.heic");
  write("photos/dog/README");
  EXPECT_THAT(data_error(),
              HasSubstr("class 'dog' has no pictures: its 3 files are of kinds that are not read "
                        "(.heic 2, no extension 1)"));
  fs::create_directories(path("photos/fox"));
  EXPECT_THAT(data_error(), HasSubstr("classes 'dog', 'fox' have no pictures"));
  write_two_splits();
  fs::create_directories(path("photos/train/fox"));
  EXPECT_THAT(data_error(), HasSubstr("photos/train': class 'fox' has no pictures"));
}

TEST_F(OwnFolder, AClassOfOnePictureCannotBeSplit) {
  write_class("cat", 2);
  write_class("dog", 1);
  EXPECT_THAT(data_error(), HasSubstr("class 'dog' has 1 picture, expected at least 2"));
}

TEST_F(OwnFolder, ALinkInACircleIsRefused) {
  write_class("cat", 2);
  write_class("dog", 2);
  fs::create_directory_symlink(path(), path("photos/dog/again"));
  EXPECT_THAT(data_error(), HasSubstr("photos/dog/again"));
}

TEST_F(OwnFolder, AClassNameThatIsNoUtf8IsRefused) {
  write_class("cat", 2);
  write_class("d\xFFg", 2);
  EXPECT_THAT(data_error(), HasSubstr("is not valid UTF-8"));
}

}  // namespace
}  // namespace clip_lora::data
