#include <gmock/gmock.h>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/prompts.hpp"
#include "support/files.hpp"
#include "support/temporary_folder.hpp"
#include "support/throws.hpp"

namespace clip_lora::testing {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

using Strings = std::vector<std::string>;

class PromptFiles : public ::testing::Test {
 protected:
  std::filesystem::path file(const std::string& name, const std::string& text) const {
    write_bytes(folder_ / name, text);
    return folder_ / name;
  }
  Strings templates(const std::string& text, const std::string& name = "templates.txt") const {
    return text::read_templates(file(name, text));
  }
  std::string templates_error(const std::string& text, const std::string& name = "templates.txt") const {
    return message_of<ConfigError>([&] { templates(text, name); });
  }
  text::ClassPrompts prompts(const std::string& text, const Strings& class_names,
                             const std::string& name = "prompts.json") const {
    return text::read_class_prompts(file(name, text), class_names);
  }
  std::string prompts_error(const std::string& text, const Strings& class_names) const {
    return message_of<ConfigError>([&] { prompts(text, class_names); });
  }

  TemporaryFolder folder_;
};

TEST_F(PromptFiles, TemplatesAreTheLinesOfAText) {
  EXPECT_THAT(templates("a photo of a {}.\n{} in the wild\n"),
              ElementsAre("a photo of a {}.", "{} in the wild"));
  EXPECT_THAT(templates("[old] photo of a {}"), ElementsAre("[old] photo of a {}"));
  EXPECT_THAT(templates("{}"), ElementsAre("{}"));
}

TEST_F(PromptFiles, AByteOrderMarkWindowsLineEndsAndBlankLinesAreNoTemplates) {
  EXPECT_THAT(templates("\xEF\xBB\xBF"
                        "a {}.\r\n\r\n  \r\nthe {}.\r\n"),
              ElementsAre("a {}.", "the {}."));
  EXPECT_THAT(templates("\xEF\xBB\xBF[\"a {}.\"]"), ElementsAre("a {}."));
}

TEST_F(PromptFiles, TemplatesAreTheStringsOfAJsonArrayWhateverTheFileIsCalled) {
  EXPECT_THAT(templates(R"(["a photo of a {}.", "ein Foto: {} \u00fc"])"),
              ElementsAre("a photo of a {}.", "ein Foto: {} \u00fc"));
  EXPECT_THAT(templates("[\n  \"a {}.\"\n]\n", "templates.JSON"), ElementsAre("a {}."));
}

TEST_F(PromptFiles, ATemplateWithoutBracesIsAnErrorWithFileAndPlace) {
  EXPECT_THAT(templates_error("a {}.\n\na photo of a {class}.\n"),
              AllOf(HasSubstr("templates.txt', line 3"), HasSubstr("got 'a photo of a {class}.'")));
  EXPECT_THAT(templates_error(R"(["a {}.", "a photo"])"),
              AllOf(HasSubstr("entry 2"), HasSubstr("got 'a photo'")));
}

TEST_F(PromptFiles, AFileThatCannotBeReadIsAnError) {
  const auto missing = folder_ / "none.txt";
  EXPECT_THAT(message_of<ConfigError>([&] { text::read_templates(missing); }),
              AllOf(HasSubstr("none.txt"), HasSubstr("cannot be read")));
  EXPECT_THAT(message_of<ConfigError>([&] { text::read_templates(folder_.path()); }),
              HasSubstr("cannot be read"));
}

TEST_F(PromptFiles, AnEmptyFileIsAnError) {
  EXPECT_THAT(templates_error(""), HasSubstr("got none"));
  EXPECT_THAT(templates_error("\n \n"), HasSubstr("got none"));
  EXPECT_THAT(templates_error("[]", "templates.json"), HasSubstr("an empty array"));
}

TEST_F(PromptFiles, BytesThatAreNotUtf8AreAnErrorWithTheirLine) {
  EXPECT_THAT(templates_error("a {}.\nein sch\xF6nes {}.\n"), AllOf(HasSubstr("line 2"), HasSubstr("UTF-8")));
}

TEST_F(PromptFiles, BrokenJsonIsAnErrorThatSaysWhere) {
  EXPECT_THAT(templates_error("[\"a {}.\",\n \"b {}\" \"c\"]"),
              AllOf(HasSubstr("not JSON"), HasSubstr("line 2")));
  EXPECT_THAT(templates_error("a photo of a {}.", "templates.json"), HasSubstr("not JSON"));
}

TEST_F(PromptFiles, EntriesThatAreNoPromptsAreErrors) {
  EXPECT_THAT(templates_error(R"(["a {}.", 3])"), AllOf(HasSubstr("entry 2"), HasSubstr("got number")));
  EXPECT_THAT(templates_error(R"(["a {}.", "  "])"), AllOf(HasSubstr("entry 2"), HasSubstr("blank")));
  EXPECT_THAT(templates_error("7", "templates.json"), HasSubstr("expected an array"));
  EXPECT_THAT(templates_error(R"({"cat": ["a cat"]})"), AllOf(HasSubstr("object"), HasSubstr("hint")));
}

TEST_F(PromptFiles, ClassPromptsOfTemplatesAreFilledIn) {
  const text::ClassPrompts expected = {{"a cat.", "cat art"}, {"a tree frog.", "tree frog art"}};
  EXPECT_EQ(prompts(R"(["a {}.", "{} art"])", {"cat", "tree_frog"}), expected);
  EXPECT_EQ(prompts("a {}.\n{} art\n", {"cat", "tree_frog"}, "prompts.txt"), expected);
}

TEST_F(PromptFiles, DescriptionsAreFoundByTheClassesNamesWhateverTheirCaseAndUnderscores) {
  EXPECT_EQ(prompts(R"({"tree frog": ["green", "sits on {}"], "GR\u00dcNE_Wiese": ["grass"], "unused": 1})",
                    {"gr\u00fcne wiese", "Tree_Frog"}),
            (text::ClassPrompts{{"grass"}, {"green", "sits on {}"}}));
}

TEST_F(PromptFiles, AClassIsFoundByItsOwnSpellingFirst) {
  const std::string both = R"({"Polish": ["from Poland"], "polish": ["for shoes"]})";
  EXPECT_EQ(prompts(both, {"polish", "Polish"}), (text::ClassPrompts{{"for shoes"}, {"from Poland"}}));
  EXPECT_THAT(prompts_error(both, {"POLISH"}), AllOf(HasSubstr("'POLISH'"), HasSubstr("Polish, polish")));
}

TEST_F(PromptFiles, ClassesOfOneNameShareTheirDescriptions) {
  EXPECT_EQ(prompts(R"({"missile": ["flies"]})", {"missile", "missile"}),
            (text::ClassPrompts{{"flies"}, {"flies"}}));
}

TEST_F(PromptFiles, MissingClassesAreNamedTenAndCounted) {
  Strings names = {"cat"};
  for (int i = 1; i <= 12; ++i) names.push_back("class " + std::to_string(i));
  EXPECT_THAT(prompts_error(R"({"cat": ["purrs"]})", names),
              AllOf(HasSubstr("prompts.json"), HasSubstr("12 of 13 classes: class 1, "),
                    HasSubstr("class 10"), Not(HasSubstr("class 11")), HasSubstr("2 more")));
}

TEST_F(PromptFiles, BadDescriptionsAreErrorsThatNameTheClass) {
  EXPECT_THAT(prompts_error(R"({"cat": "purrs"})", {"cat"}),
              AllOf(HasSubstr("'cat'"), HasSubstr("got string")));
  EXPECT_THAT(prompts_error(R"({"cat": []})", {"cat"}), AllOf(HasSubstr("'cat'"), HasSubstr("at least one")));
  EXPECT_THAT(prompts_error(R"({"cat": ["purrs", null]})", {"cat"}), AllOf(HasSubstr("'cat', entry 2")));
  EXPECT_THAT(prompts_error(R"({"cat": ["a"], "cat": ["b"]})", {"cat"}), HasSubstr("'cat' is there twice"));
}

}  // namespace
}  // namespace clip_lora::testing
