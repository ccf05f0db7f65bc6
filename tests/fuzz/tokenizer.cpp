#include "clip_lora/text/tokenizer.hpp"

#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void run(std::string_view input) {
  static const text::Tokenizer tokenizer;
  read_whatever_it_is([&] {
    const auto ids = tokenizer.encode(input);
    for (const auto id : ids) require(id >= 0 && id < text::kVocabularySize, "an id is in the vocabulary");
    const auto cut = tokenizer.tokenize(input, text::kContextLength, text::Overlong::kTruncate);
    require(cut.size() == text::kContextLength && cut.front() == text::kStartOfText,
            "a row begins with its token");
    const bool fits = ids.size() + 2 <= cut.size();
    require(!fits || tokenizer.tokenize(input) == cut, "a text that fits is not cut");
    read_whatever_it_is([&] { tokenizer.tokenize(input, 2); });
  });
}

std::vector<std::string> seeds() {
  return {"a photo of a cat.",
          "A Photo of the 20,000 cats' and dogs'LL  don't we've",
          "caf\u00e9 na\u00efve \u00fcber \u0391\u03a3 \u0130\u017f\u0345",
          "&lt;p&gt; &amp;amp; &#233; &#xE9; &eacute &CounterClockwiseContourIntegral; &#x80; &#0; &notit;",
          "<|startoftext|> x <|endoftext|>",
          "\u4e2d\u6587 \U0001f600\U0001f468\u200d\U0001f469 \u00a0\u2003\x1c\x1f\t\v\f",
          std::string(300, 'a'),
          std::string("\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80", 10)};
}

}  // namespace

const Target tokenizer = {"tokenizer", run, seeds};

}  // namespace clip_lora::fuzz
