#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/benchmark.hpp"
#include "clip_lora/text/prompts.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::message_of;
using clip_lora::testing::write_bytes;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

namespace fs = std::filesystem;

void add(const fs::path& file, const std::string& bytes = "") {
  fs::create_directories(file.parent_path());
  write_bytes(file, bytes);
}

std::vector<std::string> images(const std::vector<Item>& items) {
  std::vector<std::string> paths;
  for (const Item& item : items) paths.push_back(item.image);
  return paths;
}

struct Layout {
  std::string dataset;
  fs::path image_folder;
  fs::path split_file;
};

class CoopLayout : public ::testing::TestWithParam<Layout> {};

TEST_P(CoopLayout, IsFoundUnderTheRoot) {
  const clip_lora::testing::TemporaryFolder root;
  const Layout& layout = GetParam();
  fs::create_directories(root / layout.image_folder);
  add(root / layout.split_file,
      R"({"train": [["a.jpg", 0, "x_y"]], "val": [["b.jpg", 0, "x_y"]], "test": [["c.jpg", 0, "x_y"]]})");
  const Dataset dataset = load_benchmark(layout.dataset, root.path());
  EXPECT_EQ(dataset.name, layout.dataset);
  EXPECT_EQ(dataset.train[0].image, (root / layout.image_folder / "a.jpg").string());
  EXPECT_THAT(dataset.class_names, ElementsAre("x y"));
  EXPECT_FALSE(dataset.val_is_drawn_from_train);
}

// The table of folders that CoOp and the CLIP-LoRA release ask for.
INSTANTIATE_TEST_SUITE_P(
    All, CoopLayout,
    ::testing::Values(
        Layout{"caltech101", "caltech-101/101_ObjectCategories", "caltech-101/split_zhou_Caltech101.json"},
        Layout{"caltech101", "Caltech101/101_ObjectCategories", "Caltech101/split_zhou_Caltech101.json"},
        Layout{"dtd", "dtd/images", "dtd/split_zhou_DescribableTextures.json"},
        Layout{"dtd", "DTD/images", "DTD/split_zhou_DescribableTextures.json"},
        Layout{"eurosat", "eurosat/2750", "eurosat/split_zhou_EuroSAT.json"},
        Layout{"food101", "food-101/images", "food-101/split_zhou_Food101.json"},
        Layout{"food101", "Food101/images", "Food101/split_zhou_Food101.json"},
        Layout{"oxford_flowers", "oxford_flowers/jpg", "oxford_flowers/split_zhou_OxfordFlowers.json"},
        Layout{"oxford_flowers", "Flower102/jpg", "Flower102/split_zhou_OxfordFlowers.json"},
        Layout{"oxford_pets", "oxford_pets/images", "oxford_pets/split_zhou_OxfordPets.json"},
        Layout{"oxford_pets", "OxfordPets/images", "OxfordPets/split_zhou_OxfordPets.json"},
        Layout{"shapes", "shapes/images", "shapes/split_zhou_Shapes.json"},
        Layout{"stanford_cars", "stanford_cars", "stanford_cars/split_zhou_StanfordCars.json"},
        Layout{"stanford_cars", "StanfordCars", "StanfordCars/split_zhou_StanfordCars.json"},
        Layout{"sun397", "sun397/SUN397", "sun397/split_zhou_SUN397.json"},
        Layout{"sun397", "SUN397/SUN397", "SUN397/split_zhou_SUN397.json"},
        Layout{"ucf101", "ucf101/UCF-101-midframes", "ucf101/split_zhou_UCF101.json"},
        Layout{"ucf101", "UCF101/UCF-101-midframes", "UCF101/split_zhou_UCF101.json"}));

TEST(Benchmarks, AreTheElevenAndTheShapesSortedByName) {
  EXPECT_THAT(benchmark_names(),
              ElementsAre("caltech101", "dtd", "eurosat", "fgvc", "food101", "imagenet", "oxford_flowers",
                          "oxford_pets", "shapes", "stanford_cars", "sun397", "ucf101"));
  EXPECT_THAT(published_benchmark_names(),
              ElementsAre("caltech101", "dtd", "eurosat", "fgvc", "food101", "imagenet", "oxford_flowers",
                          "oxford_pets", "stanford_cars", "sun397", "ucf101"));
}

TEST(Benchmarks, HaveTemplatesThatCanBeFilled) {
  for (const Benchmark& benchmark : benchmarks()) {
    EXPECT_FALSE(benchmark.templates.empty()) << benchmark.name;
    for (const auto& prompt : benchmark.templates)
      EXPECT_THAT(text::fill_template(prompt, "x"), HasSubstr("x"));
  }
  EXPECT_EQ(find_benchmark("imagenet")->templates.size(), 80U);
}

TEST(Benchmarks, AreFoundByTheirAliases) {
  EXPECT_EQ(find_benchmark("fgvc_aircraft"), find_benchmark("fgvc"));
  EXPECT_EQ(find_benchmark("fgcv"), nullptr);
}

TEST(Benchmarks, OfferTheNearestNameForAnUnknownOne) {
  EXPECT_THAT(message_of<ConfigError>([] { load_benchmark("eurosta", "."); }),
              AllOf(HasSubstr("unknown data set 'eurosta'"), HasSubstr("did you mean 'eurosat'?")));
}

TEST(Benchmarks, TakeTheFirstOfTheFoldersThatExists) {
  const clip_lora::testing::TemporaryFolder root;
  fs::create_directory(root / "DTD");
  EXPECT_EQ(find_folder(*find_benchmark("dtd"), root.path()), root / "DTD");
  fs::create_directory(root / "dtd");
  EXPECT_EQ(find_folder(*find_benchmark("dtd"), root.path()), root / "dtd");
}

TEST(Benchmarks, NameEveryFolderThatWasTried) {
  const clip_lora::testing::TemporaryFolder root;
  EXPECT_EQ(message_of<DataError>([&] { load_benchmark("caltech101", root.path()); }),
            "data set 'caltech101': no folder; tried '" + (root / "caltech-101").string() + "', '" +
                (root / "Caltech101").string() + "' (hint: --root_path is the folder that holds them)");
}

TEST(Benchmarks, SayWhyAFolderCannotBeLookedAt) {
  const clip_lora::testing::TemporaryFolder root;
  fs::create_symlink("dtd", root / "dtd");  // a link to itself
  EXPECT_THAT(message_of<DataError>([&] { load_benchmark("dtd", root.path()); }),
              AllOf(HasSubstr((root / "dtd").string()), HasSubstr("cannot be looked at: Too many levels")));
}

class Fgvc : public ::testing::Test {
 protected:
  Fgvc() {
    fs::create_directories(folder() / "images");
    add(folder() / "variants.txt", "A340-200\n737-200\nDR_400\n");
    write_split("train", "0000002 737-200\n0000001 A340-200\n");
    write_split("val", "0000003 DR_400\n");
    write_split("test", "0000004 737-200\n");
  }

  fs::path folder() const { return root_ / "fgvc_aircraft"; }
  void write_split(const std::string& split, const std::string& lines) const {
    add(folder() / ("images_variant_" + split + ".txt"), lines);
  }
  std::string file(const std::string& name) const { return (folder() / name).string(); }
  Dataset load() const { return load_benchmark("fgvc_aircraft", root_.path()); }
  std::string error() const {
    return message_of<DataError>([&] { load(); });
  }

  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(Fgvc, LabelsVariantsInTheOrderOfTheirFileAndKeepsTheOrderOfThePictures) {
  const Dataset dataset = load();
  EXPECT_EQ(dataset.name, "fgvc");
  EXPECT_THAT(dataset.class_names, ElementsAre("A340-200", "737-200", "DR 400"));
  EXPECT_THAT(images(dataset.train), ElementsAre(file("images/0000002.jpg"), file("images/0000001.jpg")));
  EXPECT_EQ(dataset.train[0].label, 1);
  EXPECT_EQ(dataset.val[0].label, 2);
  EXPECT_EQ(dataset.test[0].image, file("images/0000004.jpg"));
}

TEST_F(Fgvc, TakesNamesWithSpacesAndLinesFromWindows) {
  add(folder() / "variants.txt", "Boeing  717\r\n");
  for (const std::string split : {"train", "val", "test"}) write_split(split, "1 Boeing  717\r\n\r\n");
  EXPECT_THAT(load().class_names, ElementsAre("Boeing  717"));
  EXPECT_EQ(load().train.size(), 1U);
}

TEST_F(Fgvc, WarnsOfAClassThatNoTestImageHas) {
  EXPECT_THAT(load().warnings, ElementsAre("classes without training images: 'DR 400'",
                                           "classes without test images: 'A340-200', 'DR 400'"));
}

TEST_F(Fgvc, NamesTheLineOfAnUnknownVariant) {
  write_split("val", "0000003 DR_400\n0000009 A340-20\n");
  EXPECT_THAT(error(),
              AllOf(HasSubstr("images_variant_val.txt', line 2: 'A340-20' is no line of variants.txt"),
                    HasSubstr("did you mean 'A340-200'?")));
}

TEST_F(Fgvc, NamesALineWithoutAVariantAndAnEmptyList) {
  write_split("test", "0000003\n");
  EXPECT_THAT(error(), HasSubstr("images_variant_test.txt', line 1: '0000003' is one word"));
  write_split("test", "\n");
  EXPECT_THAT(error(), HasSubstr("images_variant_test.txt' is empty"));
}

TEST_F(Fgvc, RefusesAVariantThatIsListedTwice) {
  add(folder() / "variants.txt", "A340-200\n737-200\nDR_400\nA340-200\n");
  EXPECT_THAT(error(), HasSubstr("variants.txt has 'A340-200' twice"));
}

TEST_F(Fgvc, SaysWhatToMoveWhereTheArchivesInnerFolderIsInTheWay) {
  const fs::path inner = root_ / "moved";
  fs::rename(folder(), inner);
  fs::create_directory(folder());
  fs::rename(inner, folder() / "data");
  EXPECT_THAT(error(),
              AllOf(HasSubstr("no '" + (folder() / "variants.txt").string()),
                    HasSubstr("move what is in '" + (folder() / "data").string() + "' one folder up")));
}

class ImageNet : public ::testing::Test {
 protected:
  /// Class folders with one picture each in train, and two in val.
  void write(const std::string& parent, const std::vector<std::string>& classes) const {
    for (const auto& name : classes) {
      add(folder() / parent / "train" / name / (name + "_1.JPEG"));
      add(folder() / parent / "val" / name / "ILSVRC2012_val_2.JPEG");
      add(folder() / parent / "val" / name / "ILSVRC2012_val_1.JPEG");
    }
  }

  fs::path folder() const { return root_ / "imagenet"; }
  std::string file(const std::string& name) const { return (folder() / name).string(); }
  Dataset load() const { return load_benchmark("imagenet", root_.path()); }
  std::string error() const {
    return message_of<DataError>([&] { load(); });
  }

  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(ImageNet, TakesClassesInTheOrderOfTheirFoldersAndNamesFromTheFile) {
  write("images", {"n2", "n10"});
  add(folder() / "classnames.txt", "n2 great_white shark\nn10 tench\nn3 hen\n");
  for (const std::string leftover :
       {"images/train/ILSVRC2012_devkit_t12.tar.gz", "images/val/LOC_val_solution.csv",
        "images/val/valprep.sh", "ILSVRC2012_img_val.tar"}) {
    add(folder() / leftover);
  }
  const Dataset dataset = load();
  EXPECT_THAT(dataset.class_names, ElementsAre("tench", "great white shark"));
  EXPECT_THAT(images(dataset.train),
              ElementsAre(file("images/train/n10/n10_1.JPEG"), file("images/train/n2/n2_1.JPEG")));
  EXPECT_EQ(dataset.test.size(), 4U);
  EXPECT_EQ(dataset.test[0].image, file("images/val/n10/ILSVRC2012_val_1.JPEG"));
  EXPECT_EQ(dataset.test[3].label, 1);
  EXPECT_TRUE(dataset.val.empty());
  EXPECT_TRUE(dataset.val_is_drawn_from_train);
  EXPECT_THAT(dataset.warnings, IsEmpty());
}

TEST_F(ImageNet, MayLieBesideTheNamesInsteadOfInImages) {
  write(".", {"n1"});
  fs::create_directories(folder() / "images");
  add(folder() / "classnames.txt", "n1 tench\n");
  EXPECT_EQ(fs::path(load().train[0].image).lexically_normal(), folder() / "train/n1/n1_1.JPEG");
}

TEST_F(ImageNet, HasClipsNamesForAThousandFolders) {
  std::vector<std::string> classes;
  for (int i = 0; i < 1000; ++i) classes.push_back("n" + std::to_string(10000 + i));
  write("images", classes);
  const Dataset dataset = load();
  EXPECT_EQ(dataset.class_names, text::imagenet_class_names());
  EXPECT_EQ(dataset.train[999].label, 999);
  EXPECT_THAT(dataset.warnings, ElementsAre("several classes have the same name: 'missile', 'sunglasses'"));
}

TEST_F(ImageNet, WantsAFileOfNamesForAnyOtherNumberOfFolders) {
  write("images", {"n1", "n2"});
  EXPECT_THAT(error(), AllOf(HasSubstr("train has 2 class folders, CLIP's class names are for 1000"),
                             HasSubstr((folder() / "classnames.txt").string())));
}

TEST_F(ImageNet, NamesTheFoldersThatTheFileOfNamesLacks) {
  write("images", {"n1", "n2"});
  add(folder() / "classnames.txt", "n1 tench\n");
  EXPECT_THAT(error(), HasSubstr("has no line for the class folders 'n2'"));
  add(folder() / "classnames.txt", "n1 tench\nn2\n");
  EXPECT_THAT(error(), HasSubstr("line 2: 'n2' is one word, expected an id, a space and a name"));
}

TEST_F(ImageNet, SaysHowToMendPicturesOutsideOfClassFolders) {
  write("images", {"n1"});
  fs::remove_all(folder() / "images/val/n1");
  EXPECT_THAT(error(), AllOf(HasSubstr("has no class folders"), Not(HasSubstr("side by side"))));
  add(folder() / "images/val/ILSVRC2012_val_00000001.JPEG");
  EXPECT_THAT(
      error(),
      AllOf(HasSubstr((folder() / "images/val").string()),
            HasSubstr("its pictures lie side by side (hint: move each into the folder of its class")));
}

TEST_F(ImageNet, WantsTheSameClassesInTrainAndVal) {
  write("images", {"n1", "n2"});
  fs::rename(folder() / "images/val/n2", folder() / "images/val/n3");
  EXPECT_THAT(error(), HasSubstr("other class folders, 2 and 2; only in train: 'n2'; only in val: 'n3'"));
}

TEST_F(ImageNet, NamesClassFoldersWithoutPictures) {
  write("images", {"n1", "n2"});
  fs::remove(folder() / "images/train/n1/n1_1.JPEG");
  EXPECT_THAT(error(), HasSubstr("class folders without pictures: 'n1'"));
}

TEST_F(ImageNet, NamesTheFolderThatIsMissing) {
  fs::create_directories(folder());
  EXPECT_THAT(error(), AllOf(HasSubstr((folder() / "images/train").string()),
                             HasSubstr((folder() / "train").string())));
  fs::create_directories(folder() / "train");
  EXPECT_THAT(error(),
              AllOf(HasSubstr((folder() / "images/val").string()), HasSubstr((folder() / "val").string())));
}

}  // namespace
}  // namespace clip_lora::data
