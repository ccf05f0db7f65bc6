#include <random>

#include "clip_lora/data/class_names.hpp"
#include "own_data.hpp"

namespace clip_lora::data {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class ClassNamesFile : public OwnData {
 protected:
  ClassNames read(const std::string& text, const std::string& name = "names.txt") const {
    write(name, text);
    return read_class_names(path(name));
  }

  std::string error_for(const std::string& text, const std::string& name = "names.txt") const {
    std::string message = testing::message_of<ConfigError>([&] { read(text, name); });
    EXPECT_THAT(message, HasSubstr("file of class names '" + path(name).string() + "'"));
    return message;
  }
};

TEST_F(ClassNamesFile, OneNamePerLineIsAListWithoutBlanksAndBlankLines) {
  const ClassNames names = read("\xEF\xBB\xBF  red fox \r\n\r\nnaïve:cat\n\n3:1\nlast");
  EXPECT_THAT(names.names, ElementsAre("red fox", "naïve:cat", "3:1", "last"));
  EXPECT_THAT(names.renamed, IsEmpty());
}

TEST_F(ClassNamesFile, AColonInEveryLineNamesFolders) {
  const ClassNames names = read("n02: red fox\nn01:\tStar Trek: Voyager\n");
  EXPECT_THAT(names.names, ElementsAre("red fox", "Star Trek: Voyager"));
  EXPECT_THAT(names.renamed, UnorderedElementsAre(Pair("n01", "Star Trek: Voyager"), Pair("n02", "red fox")));
}

TEST_F(ClassNamesFile, JsonIsAnArrayOrAnObjectInItsOrder) {
  const ClassNames list = read(R"( ["b: c", "a"])");
  EXPECT_THAT(list.names, ElementsAre("b: c", "a"));
  EXPECT_THAT(list.renamed, IsEmpty());
  const ClassNames object = read(R"({"y": "b", "x": "a"})");
  EXPECT_THAT(object.names, ElementsAre("b", "a"));
  EXPECT_THAT(object.renamed, UnorderedElementsAre(Pair("x", "a"), Pair("y", "b")));
}

TEST_F(ClassNamesFile, WhatIsMissingOrEmptyIsRefused) {
  EXPECT_THAT(testing::message_of<ConfigError>([&] { read_class_names(path("none.txt")); }),
              HasSubstr("missing or cannot be read"));
  EXPECT_THAT(testing::message_of<ConfigError>([&] { read_class_names(folder_.path()); }),
              HasSubstr("missing or cannot be read"));
  for (const auto* text : {"", "\n \r\n", "[]", "{}"})
    EXPECT_THAT(error_for(text), HasSubstr("names no class"));
  EXPECT_THAT(error_for("", "names.json"), HasSubstr("not valid JSON"));
}

TEST_F(ClassNamesFile, BadLinesAreRefusedByNumber) {
  EXPECT_THAT(error_for("a\nb\xFF\n"), HasSubstr("line 2 is not valid UTF-8"));
  EXPECT_THAT(error_for("a: b\n\nc\n"), AllOf(HasSubstr("line 3 is 'c'"), HasSubstr("'folder: name'")));
  EXPECT_THAT(error_for("a: b\nc:\n"), HasSubstr("line 2: a name is empty"));
  EXPECT_THAT(error_for("a: b\n: c\n"), HasSubstr("line 2: nothing is named 'c'"));
  EXPECT_THAT(error_for("a: b\nb: c\na: d\n"), HasSubstr("line 3: 'a' is named twice"));
}

TEST_F(ClassNamesFile, BadJsonIsRefused) {
  EXPECT_THAT(error_for("[\"a\""), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_for("\"a\"", "names.json"), HasSubstr("a JSON string, expected an array or an object"));
  EXPECT_THAT(error_for(R"(["a", 1])"), HasSubstr("entry 1: a name is a JSON number, expected a string"));
  EXPECT_THAT(error_for(R"(["a", ["b"]])"), HasSubstr("nested"));
  EXPECT_THAT(error_for(R"(["a", " "])"), HasSubstr("entry 1: a name is empty"));
  EXPECT_THAT(error_for(R"({"a": "b", "a": "c"})"), HasSubstr("'a' is named twice"));
  EXPECT_THAT(error_for(R"({"a": null})"), HasSubstr("'a': a name is a JSON null"));
  EXPECT_THAT(error_for(std::string(100000, '[')), HasSubstr("nested"));
}

TEST_F(ClassNamesFile, DamagedFilesAreReadOrRefused) {
  std::mt19937 random(1);
  const std::vector<std::string> good = {
      "red fox\nnaïve cat\nÅland dog\n", "a: red fox\nb: naïve cat\nc: dog\n",
      R"(["red fox", "naïve cat", "dog"])", R"({"a": "red fox", "b": "naïve cat"})"};
  for (int i = 0; i < 2000; ++i) {
    std::string text = good[random() % good.size()];
    for (auto edits = random() % 4; edits < 4; ++edits)
      text[random() % text.size()] = static_cast<char>(random());
    text.resize(random() % 3 == 0 ? random() % text.size() : text.size());
    write("names.txt", text);
    try {
      EXPECT_FALSE(read_class_names(path("names.txt")).names.empty());
    } catch (const ConfigError&) {
    }
  }
}

}  // namespace
}  // namespace clip_lora::data
