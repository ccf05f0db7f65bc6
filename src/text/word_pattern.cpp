#include "word_pattern.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

#include "unicode.hpp"

namespace clip_lora::text {
namespace {

/// Matching regardless of case, Python's regex module finds U+0345 in none of the alternatives: it is no
/// letter, but its capital, U+0399, is one.
constexpr char32_t kCombiningIota = U'\u0345';

/// The long s is the one code point beside the ASCII letters that equals one of the literals' letters but for
/// its case, and is its own lower case.
constexpr char32_t kLongS = U'\u017F';

bool is_other(char32_t c) { return !is_space(c) && !is_letter(c) && !is_number(c) && c != kCombiningIota; }

bool starts_with(std::u32string_view text, std::u32string_view literal) {
  const auto same = [](char32_t wanted, char32_t c) { return wanted == (c == kLongS ? U's' : c); };
  return text.size() >= literal.size() && std::equal(literal.begin(), literal.end(), text.begin(), same);
}

/// Length of the literal alternative that `text` starts with, or 0.
std::size_t literal_length(std::u32string_view text) {
  static constexpr std::array<std::u32string_view, 9> kLiterals = {
      kStartOfTextWord, kEndOfTextWord, U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"};
  if (text[0] != U'<' && text[0] != U'\'') {
    return 0;
  }
  const auto found = std::find_if(kLiterals.begin(), kLiterals.end(),
                                  [text](std::u32string_view literal) { return starts_with(text, literal); });
  return found == kLiterals.end() ? 0 : found->size();
}

std::size_t run_length(std::u32string_view text, bool (*belongs)(char32_t)) {
  return static_cast<std::size_t>(std::find_if_not(text.begin(), text.end(), belongs) - text.begin());
}

/// Length of the word that `text` starts with, or 0 if none starts there.
std::size_t word_length(std::u32string_view text) {
  if (const auto length = literal_length(text)) {
    return length;
  }
  if (const auto length = run_length(text, is_letter)) {
    return length;
  }
  return is_number(text[0]) ? 1 : run_length(text, is_other);
}

}  // namespace

std::vector<std::u32string_view> find_words(std::u32string_view text) {
  std::vector<std::u32string_view> words;
  while (!text.empty()) {
    const auto length = word_length(text);
    if (length > 0) {
      words.push_back(text.substr(0, length));
    }
    text.remove_prefix(std::max<std::size_t>(length, 1));
  }
  return words;
}

}  // namespace clip_lora::text
