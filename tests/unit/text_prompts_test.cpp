#include <gmock/gmock.h>

#include <set>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/prompts.hpp"
#include "support/throws.hpp"

namespace clip_lora::text {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

TEST(FillTemplate, PutsTheNameInPlaceOfTheBraces) {
  EXPECT_EQ(fill_template(kDefaultTemplate, "cat"), "a photo of a cat.");
}

TEST(FillTemplate, MakesUnderscoresOfTheNameSpacesAndLeavesTheTemplates) {
  EXPECT_EQ(fill_template("my_{} photo", "annual_crop_land"), "my_annual crop land photo");
}

TEST(FillTemplate, FillsTheFirstBracesOnly) { EXPECT_EQ(fill_template("{} and {}", "{}"), "{} and {}"); }

TEST(FillTemplate, RejectsATemplateWithoutBracesNamingIt) {
  try {
    fill_template("a photo of a cat.", "dog");
    FAIL() << "expected a ConfigError";
  } catch (const ConfigError& error) {
    EXPECT_THAT(error.what(), HasSubstr("'a photo of a cat.'"));
  }
}

TEST(ClassPrompts, AreEveryTemplateOfEveryClass) {
  EXPECT_EQ(class_prompts({"cat", "tree_frog"}, {"a photo of a {}.", "{} art"}),
            (ClassPrompts{{"a photo of a cat.", "cat art"}, {"a photo of a tree frog.", "tree frog art"}}));
}

TEST(ClassPrompts, NeedATemplateAndItsBraces) {
  EXPECT_THAT(testing::message_of<ConfigError>([] { class_prompts({"cat"}, {}); }), HasSubstr("got none"));
  EXPECT_THAT(testing::message_of<ConfigError>([] {
                class_prompts({"cat"}, {"{}", "a photo"});
              }),
              HasSubstr("'a photo'"));
}

TEST(ImagenetClassNames,
     AreAThousandAndNearlyAllDistinct) {  // CLIP's list names "missile" and "sunglasses" twice
  const auto& names = imagenet_class_names();
  EXPECT_EQ(names.size(), 1000U);
  EXPECT_EQ(names.front(), "tench");
  EXPECT_EQ(names.back(), "toilet paper");
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 998U);
}

TEST(ImagenetTemplates, AreEightyDistinctOnesWithOnePairOfBraces) {
  const auto& templates = imagenet_templates();
  EXPECT_EQ(std::set<std::string>(templates.begin(), templates.end()).size(), 80U);
  EXPECT_THAT(templates, Contains(std::string(kDefaultTemplate)));
  for (const auto& prompt_template : templates) {
    const auto filled = fill_template(prompt_template, "x");
    EXPECT_EQ(filled.size() + 1, prompt_template.size()) << prompt_template;
    EXPECT_EQ(filled.find_first_of("{}"), std::string::npos) << prompt_template;
  }
}

}  // namespace
}  // namespace clip_lora::text
