#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/coop_split.hpp"
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

constexpr auto kGood = R"({"train": [["b/1.jpg", 1, "sea_lake"], ["a/1.jpg", 0, "Annual Crop"]],
                           "val": [["a/2.jpg", 0, "Annual Crop"]], "test": [["b/2.jpg", 1, "sea_lake"]]})";

class CoopSplit : public ::testing::Test {
 protected:
  Dataset read(const std::string& json) const {
    write_bytes(folder_ / "split.json", json);
    return read_coop_split("pictures", folder_ / "split.json", "images");
  }

  std::string error_for(const std::string& json) const {
    std::string message = message_of<DataError>([&] { read(json); });
    EXPECT_THAT(message, HasSubstr("split file '" + (folder_ / "split.json").string() + "'"));
    return message;
  }

  /// The error about a split file whose training entries are `train`, the other splits being good.
  std::string error_for_train(const std::string& train) const {
    return error_for(R"({"train": )" + train + R"(, "val": [["v", 0, "x"]], "test": [["t", 0, "x"]]})");
  }

  clip_lora::testing::TemporaryFolder folder_;
};

TEST_F(CoopSplit, KeepsTheOrderOfEntriesAndPutsPathsUnderTheImageFolder) {
  const Dataset dataset = read(kGood);
  EXPECT_EQ(dataset.name, "pictures");
  ASSERT_EQ(dataset.train.size(), 2U);
  EXPECT_EQ(dataset.train[0].image, "images/b/1.jpg");
  EXPECT_EQ(dataset.train[0].label, 1);
  EXPECT_EQ(dataset.train[1].label, 0);
  ASSERT_EQ(dataset.val.size(), 1U);
  EXPECT_EQ(dataset.val[0].image, "images/a/2.jpg");
  ASSERT_EQ(dataset.test.size(), 1U);
  EXPECT_EQ(dataset.test[0].image, "images/b/2.jpg");
}

TEST_F(CoopSplit, OrdersClassNamesByLabelWithSpacesForUnderscores) {
  EXPECT_THAT(read(kGood).class_names, ElementsAre("Annual Crop", "sea lake"));
}

TEST_F(CoopSplit, LearnsAClassThatOnlyOneSplitHas) {
  EXPECT_THAT(
      read(R"({"train": [["a", 0, "x"]], "val": [["b", 0, "x"]], "test": [["c", 1, "y"]]})").class_names,
      ElementsAre("x", "y"));
}

TEST_F(CoopSplit, ReportsMalformedJson) {
  EXPECT_THAT(error_for(""), HasSubstr("it is not JSON"));
  const std::string whole = kGood;
  for (std::size_t part = 1; part < 16; ++part) {
    EXPECT_THAT(error_for(whole.substr(0, whole.size() * part / 16)), HasSubstr("it is not JSON"))
        << part << "/16";
  }
  EXPECT_THAT(error_for("[1, 2]"), AllOf(HasSubstr("JSON array"), HasSubstr("expected an object")));
}

TEST_F(CoopSplit, ReportsAMissingAnEmptyAndAMisshapenSplit) {
  EXPECT_THAT(error_for(R"({"train": [["a", 0, "x"]], "test": [["a", 0, "x"]]})"),
              HasSubstr("no split 'val'"));
  EXPECT_THAT(error_for_train("[]"), HasSubstr("split 'train' is empty"));
  EXPECT_THAT(error_for_train("{}"), HasSubstr("split 'train' is a JSON object, expected a list"));
  EXPECT_THAT(error_for_train("null"), HasSubstr("split 'train' is a JSON null, expected a list"));
}

TEST_F(CoopSplit, ReportsAnEntryOfAWrongShapeOrType) {
  const auto error_for_entry = [&](const std::string& entry) {
    std::string message = error_for_train(R"([["a", 0, "x"], )" + entry + "]");
    EXPECT_THAT(message, HasSubstr("train[1]"));
    return message;
  };
  EXPECT_THAT(error_for_entry(R"("b.jpg")"),
              HasSubstr(R"(is "b.jpg", expected [relative path, label, class name])"));
  EXPECT_THAT(error_for_entry(R"(["b.jpg", 0])"), HasSubstr(R"(is ["b.jpg",0])"));
  EXPECT_THAT(error_for_entry(R"(["b.jpg", 0, "x", 1])"),
              HasSubstr("expected [relative path, label, class name]"));
  EXPECT_THAT(error_for_entry(R"([7, 0, "x"])"), HasSubstr("the path 7, expected a string"));
  EXPECT_THAT(error_for_entry(R"(["", 0, "x"])"), HasSubstr("expected a string that is not empty"));
  EXPECT_THAT(error_for_entry(R"(["b.jpg", 0, null])"), HasSubstr("the class name null, expected a string"));
  for (const std::string label :
       {"\"0\"", "0.0", "-1", "true", "null", "2147483648", "18446744073709551616"}) {
    EXPECT_THAT(error_for_entry("[\"b.jpg\", " + label + ", \"x\"]"),
                HasSubstr("expected an integer from 0"));
  }
}

TEST_F(CoopSplit, ReportsALabelWithTwoNames) {
  EXPECT_THAT(error_for_train(R"([["a", 0, "x"], ["b", 0, "y"]])"),
              HasSubstr("train[1] names label 0 'y', expected 'x' as in train[0]"));
  EXPECT_THAT(error_for_train(R"([["a", 0, "y"]])"), HasSubstr("val[0] names label 0 'x', expected 'y'"));
}

TEST_F(CoopSplit, ReportsLabelsThatSkip) {
  EXPECT_THAT(error_for_train(R"([["a", 0, "x"], ["b", 2, "z"]])"),
              AllOf(HasSubstr("train[1] has label 2"), HasSubstr("no entry has label 1")));
}

TEST_F(CoopSplit, MayLackAnOptionalVal) {
  const auto read_optional = [&](const std::string& json) {
    write_bytes(folder_ / "split.json", json);
    return read_coop_split("pictures", folder_ / "split.json", "images", ValSplit::kOptional);
  };
  EXPECT_THAT(read_optional(R"({"train": [["a", 0, "x"]], "test": [["b", 0, "x"]]})").val, IsEmpty());
  EXPECT_THAT(read_optional(R"({"train": [["a", 0, "x"]], "val": [], "test": [["b", 0, "x"]]})").val,
              IsEmpty());
  EXPECT_EQ(read_optional(kGood).val.size(), 1U);
  EXPECT_THROW(read_optional(R"({"train": [["a", 0, "x"]], "val": 1, "test": [["b", 0, "x"]]})"), DataError);
  EXPECT_THROW(read_optional(R"({"train": [["a", 0, "x"]]})"), DataError);
}

TEST_F(CoopSplit, TakesPathsWithSpacesUnicodeAndNewlinesAndAbsoluteOnes) {
  const Dataset dataset = read(R"({"train": [["a b/猫\n1.jpg", 0, "x"]], "val": [["/v.jpg", 0, "x"]],
                                   "test": [["t.jpg", 0, "x"]], "image_folder": "elsewhere"})");
  EXPECT_EQ(dataset.train[0].image, "images/a b/猫\n1.jpg");
  EXPECT_EQ(dataset.val[0].image, "/v.jpg");
}

TEST_F(CoopSplit, WarnsOfClassesWithTheSameName) {
  const Dataset dataset =
      read(R"({"train": [["a", 0, "sea lake"], ["b", 1, "sea_lake"]], "val": [["v", 0, "sea lake"]],
                                   "test": [["t", 0, "sea lake"], ["u", 1, "sea_lake"]]})");
  EXPECT_THAT(dataset.warnings, ElementsAre("several classes have the same name: 'sea lake'"));
}

TEST_F(CoopSplit, CutsLongValuesShortInItsErrors) {
  std::string entries = "[\"";
  entries.append(100000, 'a').append("\"]");
  EXPECT_LT(error_for_train(entries).size(), 600U);
}

TEST_F(CoopSplit, RefusesJsonThatIsNestedDeeplyOrNamesASplitTwice) {
  const std::string deep = std::string(400000, '[') + std::string(400000, ']');
  EXPECT_THAT(error_for_train(deep), HasSubstr("nested deeper than 64"));
  EXPECT_THAT(error_for_train("[" + deep.substr(399970, 60) + "]"), HasSubstr("train[0] is [[["));
  EXPECT_THAT(error_for(R"({"train": [], "train": []})"), HasSubstr("'train' is there twice"));
}

TEST_F(CoopSplit, ReadsAFileOfManyEntriesAndAByteOrderMark) {
  std::string entries = "[\"0.jpg\", 0, \"x\"]";
  for (int i = 1; i < 50000; ++i) entries += ", [\"" + std::to_string(i) + ".jpg\", 0, \"x\"]";
  const std::string one = R"([["a.jpg", 0, "x"]])";
  const Dataset dataset =
      read("\xEF\xBB\xBF{\"train\": [" + entries + "], \"val\": " + one + ", \"test\": " + one + "}");
  ASSERT_EQ(dataset.train.size(), 50000U);
  EXPECT_EQ(dataset.train.back().image, "images/49999.jpg");
}

TEST_F(CoopSplit, SaysWhyAFolderCannotBeLookedAt) {
  std::filesystem::create_symlink("images", folder_ / "images");  // a link to itself
  write_bytes(folder_ / "split.json", kGood);
  const auto load = [&](const std::string& file) { read_coop_folder("x", folder_.path(), "images", file); };
  EXPECT_THAT(
      message_of<DataError>([&] { load("split.json"); }),
      AllOf(HasSubstr((folder_ / "images").string()), HasSubstr("cannot be looked at: Too many levels")));
  EXPECT_THAT(message_of<DataError>([&] { load(std::string(300, 'x')); }), HasSubstr("File name too long"));
}

TEST_F(CoopSplit, NamesAMissingSplitFileAndAMissingImageFolder) {
  const auto load = [&] { read_coop_folder("x", folder_ / "base", "images", "split.json"); };
  std::filesystem::create_directory(folder_ / "base");
  EXPECT_THAT(message_of<DataError>(load),
              AllOf(HasSubstr("no split file"), HasSubstr((folder_ / "base/split.json").string())));
  write_bytes(folder_ / "base" / "split.json", kGood);
  EXPECT_THAT(message_of<DataError>(load),
              AllOf(HasSubstr("no image folder"), HasSubstr((folder_ / "base/images").string())));
}

}  // namespace
}  // namespace clip_lora::data
