#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

#include "own_data.hpp"

namespace clip_lora::data {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class OwnCsv : public OwnData {
 protected:
  Dataset read(const std::string& table) const {
    write("photos/table.csv", table);
    return load("photos/table.csv");
  }

  std::string error_for(const std::string& table) const {
    write("photos/table.csv", table);
    std::string message = data_error("photos/table.csv");
    EXPECT_THAT(message, HasSubstr("'" + path("photos/table.csv").string() + "'"));
    return message;
  }

  /// Rows that make a table whole, whatever class 'a' has besides.
  static constexpr auto kRest = "x1,a,test\nx2,b,train\nx3,b,test\n";
};

TEST_F(OwnCsv, ColumnsWithoutAHeaderArePathLabelSplitGroup) {
  const Dataset dataset = read(
      "1.jpg,cat,train,g\n2.jpg,red_dog,train,\n3.jpg,cat,val,\n4.jpg,cat,test,h\n5.jpg,red_dog,test,h\n");
  EXPECT_EQ(dataset.name, "table");
  EXPECT_THAT(dataset.class_names, ElementsAre("cat", "red dog"));
  EXPECT_THAT(entries(dataset.train), ElementsAre("1.jpg 0", "2.jpg 1"));
  EXPECT_THAT(entries(dataset.val), ElementsAre("3.jpg 0"));
  EXPECT_THAT(entries(dataset.test), ElementsAre("4.jpg 0", "5.jpg 1"));
  EXPECT_THAT(dataset.warnings, IsEmpty());
}

TEST_F(OwnCsv, AHeaderNamesTheColumnsInAnyOrderAndCapitals) {
  for (const auto* path_name : {"path", "Image", "FILE", "filename"}) {
    for (const auto* label_name : {"label", "Class"}) {
      const Dataset dataset =
          read(std::string("Split, ") + label_name + " ,width," + path_name +
               "\nTrain,a,3,1.jpg\nVALID,b,3,2.jpg\nvalidation,a,3,3.jpg\nTEST,a,3,4.jpg\n"
               "train,b,3,5.jpg\ntest,b,3,6.jpg\n");
      EXPECT_THAT(entries(dataset.train), ElementsAre("1.jpg 0", "5.jpg 1"));
      EXPECT_THAT(entries(dataset.val), ElementsAre("2.jpg 1", "3.jpg 0"));
      EXPECT_THAT(entries(dataset.test), ElementsAre("4.jpg 0", "6.jpg 1"));
      EXPECT_THAT(dataset.warnings, ElementsAre(HasSubstr("columns that are not used: 'width'")));
    }
  }
}

TEST_F(OwnCsv, QuotationMarksBlanksLineEndsAndByteOrderMarkAreThoseOfCsv) {
  const Dataset dataset = read(
      "\xEF\xBB\xBFpath,label,split\r\n"
      "\"a, b.jpg\" ,\"say \"\"cheese\"\"\",train\r\n"
      "\r\n"
      "  new folder/größe.jpg ,dog, test \r\n"
      "\"line\nbreak.jpg\",dog,train\n"
      "c.jpg,\"say \"\"cheese\"\"\",test");
  EXPECT_THAT(dataset.class_names, ElementsAre("dog", "say \"cheese\""));
  EXPECT_THAT(entries(dataset.train), ElementsAre("a, b.jpg 1", "line\nbreak.jpg 0"));
  EXPECT_THAT(entries(dataset.test), ElementsAre("new folder/größe.jpg 0", "c.jpg 1"));
}

TEST_F(OwnCsv, LabelsAreSortedAsFoldersAreAndNumbersByValue) {
  const auto names = [&](const std::string& a, const std::string& b, const std::string& c) {
    std::string table;
    for (const auto& label : {a, b, c}) {
      for (const auto* split : {"train", "test"})
        table += split + label + ".jpg," + label + "," + split + "\n";
    }
    return read(table).class_names;
  };
  EXPECT_THAT(names("b", "A", "a"), ElementsAre("A", "a", "b"));
  EXPECT_THAT(names("10", "9", "x"), ElementsAre("10", "9", "x"));
  EXPECT_THAT(names("10", "9", "011"), ElementsAre("9", "10", "011"));
  EXPECT_THAT(read("1,10,train\n2,10,test\n3,7,train\n4,7,test\n").warnings,
              ElementsAre(HasSubstr("the class names are numbers")));
}

TEST_F(OwnCsv, PathsAreRelativeToTheTableOrAbsolute) {
  const Dataset dataset = read("./sub/../1.jpg,a,train\n/abs/2.jpg,b,train\n../3.jpg,a,test\n4.jpg,b,test\n");
  EXPECT_EQ(dataset.train[0].image, path("photos/./sub/../1.jpg").string()) << "'sub' may be a link";
  EXPECT_EQ(dataset.train[1].image, "/abs/2.jpg");
  EXPECT_EQ(dataset.test[0].image, path("photos/../3.jpg").string());
}

TEST_F(OwnCsv, AMissingColumnIsRefused) {
  EXPECT_THAT(error_for("a.jpg\nb.jpg\n"), HasSubstr("line 1: there is one column, expected path, label"));
  EXPECT_THAT(error_for("a.jpg;cat\n"), HasSubstr("separated by commas"));
  EXPECT_THAT(error_for("\nimage,name\na.jpg,cat\n"),
              HasSubstr("line 2: the header has no column label or class; it has: 'image', 'name'"));
  EXPECT_THAT(
      error_for("picture,label\na.jpg,cat\n"),
      HasSubstr("the header has no column path, image, file or filename; it has: 'picture', 'label'"));
  EXPECT_THAT(error_for("file,path,label\n"), HasSubstr("'file' and 'path' mean the same"));
  EXPECT_THAT(error_for("1.jpg,a,train,g,5\n"), HasSubstr("there are 5 columns"));
  // A class may be called so.
  for (const std::string name : {"path", "image", "file", "filename"}) {
    EXPECT_NO_THROW(read("1.jpg," + name + "\n2.jpg," + name + "\n3.jpg,b\n4.jpg,b\n"));
  }
  EXPECT_NO_THROW(read("1.jpg,label,train\n2.jpg,label,test\n3.jpg,b,train\n4.jpg,b,test\n"));
}

TEST_F(OwnCsv, AHeaderOfUnknownNamesIsToldByTheFileInTheSecondRow) {
  const std::string rows = "cat/0.jpg,cat\ncat/1.jpg,cat\ndog/0.jpg,dog\ndog/1.jpg,dog\n";
  write_class("cat", 1);
  EXPECT_THAT(
      error_for("filepath,target\n" + rows),
      AllOf(HasSubstr("line 1: it looks like a header, but no column's name is known: 'filepath', 'target'"),
            HasSubstr("path, image, file or filename for the path, label or class for the label")));
  write("photos/filepath");
  EXPECT_THAT(read("filepath,target\nfilepath2,target\n" + rows).class_names,
              ElementsAre("cat", "dog", "target"));
}

TEST_F(OwnCsv, AnEmptyTableIsRefused) {
  EXPECT_THAT(error_for(""), HasSubstr("it is empty"));
  EXPECT_THAT(error_for("\n\n"), HasSubstr("it is empty"));
  EXPECT_THAT(error_for("path,label\n"), HasSubstr("a header, but no rows"));
}

TEST_F(OwnCsv, BadRowsAreRefusedByLine) {
  const std::string rest = kRest;
  EXPECT_THAT(error_for(rest + "\n1.jpg,a\n"), HasSubstr("line 5: there are 2 fields, expected 3"));
  EXPECT_THAT(error_for(rest + "a,b.jpg,a,train\n"), HasSubstr("line 4: there are 4 fields, expected 3"));
  EXPECT_THAT(error_for("\"x\n0\",a,train\n" + rest + " ,a,train\n"), HasSubstr("line 6: the path is empty"));
  EXPECT_THAT(error_for(rest + "1.jpg,,train\n"), HasSubstr("line 4: the label is empty"));
  EXPECT_THAT(error_for(rest + "1.jpg,a,\n"),
              HasSubstr("line 4: the split is '', expected train, val or test"));
  EXPECT_THAT(error_for(rest + "1.jpg,a,tset\n"), HasSubstr("did you mean 'test'"));
  EXPECT_THAT(error_for(rest + "1\"2.jpg,a,train\n"), HasSubstr("line 4: a quotation mark stands within"));
  EXPECT_THAT(error_for("\"p\"\"\nq\",a,train\r\n" + rest + "\"1.jpg,a,train\n\n\n"),
              HasSubstr("line 6: a quotation mark is never closed"));
  EXPECT_THAT(error_for(rest + "1\xFF.jpg,a,train\n"), HasSubstr("line 4: it is not valid UTF-8"));
  EXPECT_THAT(error_for(rest + std::string("1\0.jpg,a,train\n", 15)),
              HasSubstr("line 4: the path has a null byte"));
}

TEST_F(OwnCsv, APictureListedTwiceIsLeftOutOnceOrRefused) {
  const std::string rest = std::string(kRest) + "1.jpg,a,train\n";
  EXPECT_THAT(read(rest + "./1.jpg,a,train\n").warnings, ElementsAre(HasSubstr("1 row repeats a picture")));
  EXPECT_THAT(entries(read(rest + "1.jpg,a,train\n").train), ElementsAre("x2 1", "1.jpg 0"));
  EXPECT_THAT(error_for(rest + "1.jpg,b,train\n"),
              AllOf(HasSubstr("line 5: "), HasSubstr("1.jpg' has the label 'b', but 'a' in line 4")));
  EXPECT_THAT(error_for(rest + "1.jpg,a,test\n"), HasSubstr("has the split 'test', but 'train' in line 4"));
}

TEST_F(OwnCsv, ASplitColumnNeedsTrainAndTestAndTheirClasses) {
  EXPECT_THAT(error_for("1,a,train\n2,b,train\n3,a,val\n"),
              AllOf(HasSubstr("no row has the split 'test'"), HasSubstr("without the column 'split'")));
  EXPECT_THAT(error_for("1,a,test\n2,b,test\n"), HasSubstr("no row has the split 'train'"));
  EXPECT_THAT(error_for("1,a,train\n2,b,test\n3,c,val\n"), HasSubstr("train has no pictures of 'b', 'c'"));
  EXPECT_THAT(error_for("1,a,train\n2,a,test\n"), HasSubstr("a single class, 'a'"));
  EXPECT_THAT(error_for("1,a\n2,a\n"), HasSubstr("a single class, 'a'"));
  write("photos/few.csv", "1,a\n2,a\n3,b\n");
  EXPECT_THAT(data_error("photos/few.csv"), HasSubstr("own data '" + path("photos/few.csv").string() +
                                                      "': class 'b' has 1 picture, expected at least 2"));
  EXPECT_THAT(read("1,a,train\n2,b,train\n3,a,test\n").warnings,
              ElementsAre(HasSubstr("without test images: 'b'")));
  EXPECT_THAT(read("1,a,train,g\n2,b,train,h\n3,a,test,g\n4,b,test,\n").warnings,
              ElementsAre(HasSubstr("groups with pictures in several splits: 'g'")));
}

TEST_F(OwnCsv, TheOrderOfTheRowsDoesNotMatter) {
  std::vector<std::string> rows;
  for (int i = 0; i < 30; ++i) rows.push_back(std::to_string(i) + (i % 2 == 0 ? ",a\n" : ",b\n"));
  const auto table = [&] { return std::accumulate(rows.begin(), rows.end(), std::string()); };
  const auto first = entries(read(table()).train);
  std::shuffle(rows.begin(), rows.end(), std::mt19937(1));
  EXPECT_EQ(entries(read(table()).train), first);
}

TEST_F(OwnCsv, AGroupStaysInOneSplitAndEverySplitGetsItsShare) {
  std::mt19937 random(1);
  for (int table_number = 0; table_number < 8; ++table_number) {
    std::string table = "group,path,label\n";
    std::map<std::string, std::string> group_of;
    int pictures = 0;
    for (int group = 0; group < 120; ++group) {
      const auto label = random() % 3;
      const bool mixed = group % 10 == 0;
      for (auto i = 1 + random() % 9; i > 0; --i, ++pictures) {
        const std::string image = std::to_string(pictures) + ".jpg";
        table += "g" + std::to_string(group) + "," + image + ",c" +
                 std::to_string(mixed ? random() % 3 : label) + "\n";
        group_of[image] = std::to_string(group);
      }
    }
    const Dataset dataset = read(table);
    std::map<std::string, std::set<const void*>> splits_of;
    for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
      for (const auto& item : *items) {
        splits_of[group_of.at(std::filesystem::path(item.image).filename())].insert(items);
      }
    }
    for (const auto& [group, splits] : splits_of) EXPECT_EQ(splits.size(), 1U) << group;
    EXPECT_EQ(dataset.train.size() + dataset.val.size() + dataset.test.size(),
              static_cast<std::size_t>(pictures));
    // A group is about 5 % of a class at most, and the smallest ones are placed last.
    EXPECT_NEAR(static_cast<double>(dataset.train.size()), 0.5 * pictures, 0.06 * pictures);
    EXPECT_NEAR(static_cast<double>(dataset.val.size()), 0.2 * pictures, 0.06 * pictures);
    EXPECT_NEAR(static_cast<double>(dataset.test.size()), 0.3 * pictures, 0.06 * pictures);
    for (int label = 0; label < 3; ++label) {
      const auto has = [label](const Item& item) { return item.label == label; };
      EXPECT_TRUE(std::any_of(dataset.train.begin(), dataset.train.end(), has));
      EXPECT_TRUE(std::any_of(dataset.test.begin(), dataset.test.end(), has));
    }
  }
}

TEST_F(OwnCsv, GroupsOfVeryDifferentSizesLeaveSomeForTrainAndTest) {
  std::string table = "path,label,group\nb1,b,\nb2,b,\n";
  for (int i = 0; i < 50; ++i) table += "l" + std::to_string(i) + ",a,large\n";
  table += "s1,a,small\n";
  const Dataset dataset = read(table);
  EXPECT_EQ(dataset.train.size(), 51U);
  EXPECT_EQ(dataset.test.size(), 2U);
  write("photos/few.csv", "path,label,group\n1,a,g\n2,a,g\n3,b,\n4,b,\n");
  EXPECT_THAT(data_error("photos/few.csv"), HasSubstr("class 'a' has 1 group, expected at least 2"));
}

TEST_F(OwnCsv, AClassWhoseGroupsOthersHavePlacedIsNamedWithTheSeedAsAHint) {
  // 'a' places its largest group, then the two small ones together in the other split; 'b' has only those.
  std::string table = "path,label,group\nb1,b,g\nb2,b,h\na1,a,g\na2,a,h\n";
  for (int i = 0; i < 100; ++i) table += "l" + std::to_string(i) + ",a,large\n";
  write("photos/table.csv", table);
  options_.split.val_fraction = 0;
  EXPECT_THAT(data_error("photos/table.csv"),
              AllOf(HasSubstr(path("photos/table.csv").string()),
                    HasSubstr("train has no pictures of 'b', since groups stay together"),
                    HasSubstr("--split_seed")));
  options_.split.test_fraction = 0.9;
  EXPECT_THAT(
      load("photos/table.csv").warnings,
      ElementsAre(AllOf(HasSubstr("test has no pictures of 'b', since groups"), HasSubstr("--split_seed")),
                  HasSubstr("without test images: 'b'")));
}

TEST_F(OwnCsv, DamagedTablesAreReadOrRefused) {
  std::mt19937 random(1);
  const std::vector<std::string> good = {
      "path,label,split\n\"a,1.jpg\",\"c\"\"at\",train\n2.jpg,dog,train\r\n3.jpg,dog,test\n4.jpg,c\"\"at,"
      "test\n",
      "1.jpg,cat\n2.jpg,cat\n3.jpg,dog\n4.jpg,dog\n", "1,a,train,g\n2,b,train,h\n3,a,test,i\n4,b,test,j\n",
      "image,class,group\n1,a,g\n2,a,h\n3,b,i\n4,b,j\n5,b,j\n"};
  const std::string likely = "\",\n\r\t ;";
  int loaded = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string table = good[random() % good.size()];
    for (auto edits = random() % 2; edits < 2; ++edits) {
      table[random() % table.size()] =
          random() % 2 == 0 ? likely[random() % likely.size()] : static_cast<char>(random());
    }
    table.resize(random() % 3 == 0 ? random() % table.size() : table.size());
    try {
      const Dataset dataset = read(table);
      ++loaded;
      for (const Item& item : dataset.train) {
        ASSERT_LT(static_cast<std::size_t>(item.label), dataset.class_names.size());
      }
    } catch (const DataError&) {
    }
  }
  EXPECT_GT(loaded, 50) << "the damage is to leave some readable";
}

}  // namespace
}  // namespace clip_lora::data
