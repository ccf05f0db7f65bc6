#include <gmock/gmock.h>

#include <string>
#include <utility>
#include <vector>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/text/tokenizer.hpp"

namespace clip_lora::text {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using Ids = std::vector<std::int64_t>;

const Tokenizer& tokenizer() {
  static const Tokenizer shared;
  return shared;
}

Ids encode(std::string_view text) { return tokenizer().encode(text); }

/// The message of the DataError that `call` throws, or "" if it throws none.
template <typename Call>
std::string data_error_of(const Call& call) {
  try {
    call();
  } catch (const DataError& error) {
    return error.what();
  }
  return "";
}

Ids joined(const std::vector<std::string>& words) {
  Ids ids;
  for (const auto& word : words) {
    const auto word_ids = encode(word);
    ids.insert(ids.end(), word_ids.begin(), word_ids.end());
  }
  return ids;
}

TEST(Tokenizer,
     LastMergeHasTheLastIdBeforeTheSpecialTokens) {  // line 48,894 of the merges file is "jeky ll</w>"
  EXPECT_THAT(encode("jekyll"), ElementsAre(kStartOfText - 1));
}

TEST(Tokenizer, FirstPrintableByteHasId0AndEndsAWordAs256) { EXPECT_THAT(encode("!"), ElementsAre(256)); }

TEST(Tokenizer, EmptyTextHasNoTokens) {
  EXPECT_THAT(encode(""), IsEmpty());
  EXPECT_THAT(encode(" \t\n\u3000"), IsEmpty());
}

TEST(Tokenizer, CaseAndWhiteSpaceDoNotMatter) {
  EXPECT_EQ(encode("  A\tPHOTO \r\n of\u00A0a\u2003Cat. "), encode("a photo of a cat."));
}

TEST(Tokenizer, LowerCasesAsPythonDoes) {
  EXPECT_EQ(encode("\u00C9COLE"), encode("\u00E9cole"));
  EXPECT_EQ(encode("\u0130"), encode("i\u0307"));  // I with dot: two code points
  EXPECT_EQ(encode("\u039F\u0394\u039F\u03A3"),
            encode("\u03BF\u03B4\u03BF\u03C2"));                          // a sigma that ends a word
  EXPECT_EQ(encode("\u03A3\u039F\u0394"), encode("\u03C3\u03BF\u03B4"));  // one that begins it
  EXPECT_EQ(encode("A\u03A3:B"), encode("a\u03C3:b"));                    // ':' is no end of a word
  EXPECT_EQ(encode("\u03A3"), encode("\u03C3"));                          // no letter before it
  EXPECT_EQ(encode("\u24B6\u03A3"), encode("\u24D0\u03C2"));              // a cased symbol counts as one
}

TEST(Tokenizer, SplitsWordsByThePattern) {
  EXPECT_EQ(encode("737-800"), joined({"7", "3", "7", "-", "8", "0", "0"}));
  EXPECT_EQ(
      encode("they've we'll I'm he'd it's don't you're"),
      joined({"they", "'ve", "we", "'ll", "i", "'m", "he", "'d", "it", "'s", "don", "'t", "you", "'re"}));
  EXPECT_EQ(encode("hello_world!?"), joined({"hello", "_", "world", "!?"}));
  EXPECT_EQ(encode("x\u00B2\u2167"), joined({"x", "\u00B2", "\u2167"}));  // a superscript and a Roman numeral
  EXPECT_EQ(encode("!'s"), joined({"!'", "s"}));  // punctuation takes the apostrophe first
}

TEST(Tokenizer, DropsWhatNoAlternativeMatches) { EXPECT_EQ(encode("a\u0345b"), joined({"a", "b"})); }

TEST(Tokenizer, ASeparatorControlIsStrippedAtTheEndsAndAWordWithin) {  // strip() takes U+001C, `\s` does not
  EXPECT_EQ(encode("\x1C a \x1F"), encode("a"));
  EXPECT_EQ(encode("a \x1D a").size(), 3U);
}

TEST(Tokenizer, SpecialTokensInATextAreRecognizedInAnyCase) {
  EXPECT_THAT(encode("<|startoftext|><|EndOfText|>"), ElementsAre(kStartOfText, kEndOfText));
}

class HtmlReference : public ::testing::TestWithParam<std::pair<std::string, std::string>> {};

TEST_P(HtmlReference, MeansItsCharacter) {
  const auto& [reference, character] = GetParam();
  EXPECT_EQ(encode("a" + reference + "z"), encode("a" + character + "z")) << reference;
}

// The right-hand sides are what html.unescape(html.unescape(…)) of CPython 3.11 gives.
INSTANTIATE_TEST_SUITE_P(Tokenizer, HtmlReference,
                         ::testing::Values(std::pair{"&eacute;", "\u00E9"},    // by name
                                           std::pair{"&eacute", "\u00E9"},     // a name that needs no ;
                                           std::pair{"&notit;", "\u00ACit;"},  // the longest name that is one
                                           std::pair{"&NotEqualTilde;", "\u2242\u0338"},
                                           std::pair{"&amp;lt;", "<"},             // twice
                                           std::pair{"&#233;", "\u00E9"},          // decimal
                                           std::pair{"&#XE9;", "\u00E9"},          // hexadecimal
                                           std::pair{"&#233 ", "\u00E9 "},         // a number needs no ;
                                           std::pair{"&#150;", "\u2013"},          // windows-1252
                                           std::pair{"&#0;", "\uFFFD"},            // NUL,
                                           std::pair{"&#xD800;", "\uFFFD"},        // a surrogate,
                                           std::pair{"&#99999999999;", "\uFFFD"},  // beyond Unicode
                                           std::pair{"&#1;", ""},                  // a control character
                                           std::pair{"&#xFFFE;", ""},              // a non-character
                                           std::pair{"&;&#;&#x;& &unknown;", "&;&#;&#x;& &unknown;"}));

TEST(Tokenizer, RejectsInvalidUtf8NamingTheText) {
  const std::vector<std::string> invalid = {
      "caf\xE9",          // Latin-1
      "\xC0\xAF",         // overlong
      "\xED\xA0\x80",     // a surrogate
      "\xF4\x90\x80\x80"  // beyond U+10FFFF
  };
  for (const auto& text : invalid) {
    EXPECT_THROW(encode(text), DataError);
  }
  EXPECT_THAT(data_error_of([&] { encode(invalid[0]); }),
              AllOf(HasSubstr("'caf\\xE9'"), HasSubstr("UTF-8"), HasSubstr("byte 3")));
}

TEST(Tokenizer, AMessageShowsAnInvalidTextOnOneLine) {
  EXPECT_THAT(data_error_of([] {
                encode(
                    "caf\u00E9\n\xFF"
                    "e");
              }),
              HasSubstr("'caf\u00E9\\x0A\\xFFe'"));
}

TEST(Tokenize, FramesTheTextAndPadsWithZeros) {
  const auto word = encode("cat");
  EXPECT_THAT(word, SizeIs(1));
  EXPECT_THAT(tokenizer().tokenize("cat", 6), ElementsAre(kStartOfText, word[0], kEndOfText, 0, 0, 0));
  EXPECT_THAT(tokenizer().tokenize("", 3), ElementsAre(kStartOfText, kEndOfText, 0));
  EXPECT_THAT(tokenizer().tokenize("cat"), SizeIs(kContextLength));
}

TEST(Tokenize, TakesATextThatJustFits) {
  std::string text;
  for (int i = 0; i < kContextLength - 2; ++i) {
    text += "1 ";
  }
  EXPECT_EQ(tokenizer().tokenize(text).back(), kEndOfText);
  EXPECT_THROW(tokenizer().tokenize(text + "1"), DataError);
}

TEST(Tokenize, AnOverlongTextIsNamedWithBothLengths) {
  EXPECT_THAT(data_error_of([] { tokenizer().tokenize("1234567", 8); }),
              AllOf(HasSubstr("'1234567'"), HasSubstr("at most 6"), HasSubstr("got 7")));
}

TEST(Tokenize, AVeryLongTextIsCutInTheMessageBetweenCharacters) {
  std::string text = "a";
  for (int i = 0; i < 1000; ++i) {
    text += "\u00E9 ";
  }
  EXPECT_THAT(data_error_of([&] { tokenizer().tokenize(text); }),
              AllOf(HasSubstr("\u2026'"), ::testing::Not(HasSubstr("\\x")), SizeIs(::testing::Lt(400U))));
}

TEST(Tokenize, TruncationKeepsTheFirstIdsAndEndsInEndOfText) {
  const auto whole = encode("1234567");
  EXPECT_THAT(tokenizer().tokenize("1234567", 5, Overlong::kTruncate),
              ElementsAre(kStartOfText, whole[0], whole[1], whole[2], kEndOfText));
  EXPECT_EQ(tokenizer().tokenize("12", 5, Overlong::kTruncate), tokenizer().tokenize("12", 5));
}

}  // namespace
}  // namespace clip_lora::text
