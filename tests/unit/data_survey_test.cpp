#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/survey.hpp"
#include "clip_lora/image/codec.hpp"
#include "support/files.hpp"
#include "support/pictures.hpp"
#include "support/temporary_folder.hpp"

namespace clip_lora::data {
namespace {

using clip_lora::testing::write_bytes;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

class Survey : public ::testing::Test {
 protected:
  /// A EuroSAT of three pictures.
  void write_eurosat() const {
    fs::create_directories(folder() / "2750");
    for (const auto& name : {"a.jpg", "b.jpg", "c.jpg"}) {
      image::write_png(folder() / "2750" / name, testing::formula_picture(8, 8));
    }
    write_bytes(folder() / "split_zhou_EuroSAT.json",
                R"({"train": [["a.jpg", 0, "x"]], "val": [["b.jpg", 0, "x"]], "test": [["c.jpg", 0, "x"]]})");
  }

  fs::path folder() const { return root_ / "eurosat"; }
  std::string picture(const std::string& name) const { return (folder() / "2750" / name).string(); }
  BenchmarkSurvey survey() const { return survey_benchmark(*find_benchmark("eurosat"), root_.path()); }

  clip_lora::testing::TemporaryFolder root_;
};

TEST_F(Survey, FindsACompleteDataSet) {
  write_eurosat();
  const BenchmarkSurvey found = survey();
  EXPECT_TRUE(found.is_complete());
  EXPECT_EQ(found.folder, folder());
  EXPECT_EQ(found.classes, 1U);
  ASSERT_EQ(found.splits.size(), 3U);
  EXPECT_EQ(found.splits[2].name, "test");
  EXPECT_THAT(found.splits[2].images, ElementsAre(picture("c.jpg")));
}

TEST_F(Survey, SaysWhereADataSetThatIsNotThereMayBe) {
  const BenchmarkSurvey found = survey();
  EXPECT_FALSE(found.is_found());
  EXPECT_FALSE(found.is_complete());
  EXPECT_THAT(found.places, ElementsAre(folder()));
  EXPECT_THAT(found.problem, IsEmpty());
}

TEST_F(Survey, KnowsDataSetsOfEveryKindByNameAndAlias) {
  EXPECT_EQ(surveyed_names().size(), benchmarks().size() + 5 + 3);
  for (const std::string& name : surveyed_names()) {
    EXPECT_EQ(find_surveyed_name(name), name);
    EXPECT_EQ(data::survey(name, root_.path()).name, name);
    EXPECT_FALSE(data::survey(name, root_.path()).places.empty());
  }
  EXPECT_EQ(find_surveyed_name("fgvc_aircraft"), "fgvc");
  EXPECT_EQ(find_surveyed_name("imagenetv2"), "imagenet_v2");
  EXPECT_EQ(find_surveyed_name("flickr"), "");
  EXPECT_THROW(data::survey("flickr", root_.path()), c10::Error);
}

TEST_F(Survey, TellsTheImagesThatAreThereFromThoseThatAreNot) {
  write_eurosat();
  fs::remove(picture("b.jpg"));
  const BenchmarkSurvey found = survey();
  EXPECT_FALSE(found.is_complete());
  EXPECT_EQ(found.missing_images(), 1U);
  EXPECT_THAT(found.splits[1].missing, ElementsAre(picture("b.jpg")));
  EXPECT_THAT(found.splits[1].images, IsEmpty());
}

TEST_F(Survey, SaysWhyAFolderCannotBeRead) {
  write_eurosat();
  write_bytes(folder() / "split_zhou_EuroSAT.json", "{");
  const BenchmarkSurvey found = survey();
  EXPECT_TRUE(found.is_found());
  EXPECT_FALSE(found.is_complete());
  EXPECT_THAT(found.problem, HasSubstr("it is not JSON"));
}

TEST_F(Survey, SaysWhyWhatIsInAFolderCannotBeLookedAt) {
  for (const std::string name : {"imagenet", "fgvc_aircraft", "eurosat"}) {
    fs::create_directories(root_ / name);
    for (const auto* inner : {"images", "variants.txt", "split_zhou_EuroSAT.json"}) {
      fs::create_symlink(inner, root_ / name / inner);  // a link to itself
    }
  }
  for (const std::string name : {"imagenet", "fgvc", "eurosat"}) {
    const BenchmarkSurvey found = survey_benchmark(*find_benchmark(name), root_.path());
    EXPECT_TRUE(found.is_found());
    EXPECT_THAT(found.problem, HasSubstr("cannot be looked at: Too many levels of symbolic links")) << name;
  }
}

TEST_F(Survey, HasNoValSplitOfImageNet) {
  for (const std::string split : {"train", "val"}) {
    fs::create_directories(root_ / "imagenet" / split / "n1");
    write_bytes(root_ / "imagenet" / split / "n1/a.JPEG", "");
  }
  write_bytes(root_ / "imagenet/classnames.txt", "n1 tench");
  const BenchmarkSurvey found = survey_benchmark(*find_benchmark("imagenet"), root_.path());
  EXPECT_TRUE(found.is_complete()) << found.problem;
  ASSERT_EQ(found.splits.size(), 2U);
  EXPECT_EQ(found.splits[1].name, "test");
}

TEST_F(Survey, FindsTheImagesThatCannotBeDecoded) {
  write_eurosat();
  fs::resize_file(picture("a.jpg"), fs::file_size(picture("a.jpg")) / 2);
  write_bytes(picture("c.jpg"), "no picture");
  std::size_t calls = 0;
  std::size_t last = 0;
  const auto broken = find_broken_images({picture("a.jpg"), picture("b.jpg"), picture("c.jpg")},
                                         /*workers=*/2, [&](std::size_t done) {
                                           ++calls;
                                           last = done;
                                         });
  ASSERT_EQ(broken.size(), 2U);
  EXPECT_EQ(broken[0].image, picture("a.jpg"));
  EXPECT_EQ(broken[1].image, picture("c.jpg"));
  EXPECT_THAT(broken[1].reason, HasSubstr(picture("c.jpg")));
  EXPECT_EQ(calls, 3U);
  EXPECT_EQ(last, 3U);
}

TEST_F(Survey, LookingForBrokenImagesEndsWhereItsProgressSaysSo) {
  write_eurosat();
  std::size_t calls = 0;
  const auto interrupt = [&](std::size_t) {
    ++calls;
    throw Interrupted(2, "interrupted");
  };
  EXPECT_THROW(find_broken_images({picture("a.jpg"), picture("b.jpg")}, /*workers=*/1, interrupt),
               Interrupted);
  EXPECT_EQ(calls, 1U);
}

}  // namespace
}  // namespace clip_lora::data
