#include "unicode.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace clip_lora::text {
namespace {

constexpr char32_t kCapitalSigma = U'\u03A3';
constexpr char32_t kSmallSigma = U'\u03C3';
constexpr char32_t kFinalSigma = U'\u03C2';
constexpr char32_t kCapitalIWithDot = U'\u0130';

/// Bytes of the code point at the start of `text`, which goes to `c`; negative if they are not UTF-8.
std::ptrdiff_t next_code_point(std::string_view text, utf8proc_int32_t& c) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  return utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size()), &c);
}

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

struct Range {
  char32_t first, last;
};

/// The property Case_Ignorable (DerivedCoreProperties.txt): by category, and by Word_Break MidLetter,
/// MidNumLet and Single_Quote, which utf8proc does not have.
bool is_case_ignorable(char32_t c) {
  static constexpr std::array<char32_t, 17> kWordPunctuation = {
      0x27,   0x2E,   0x3A,   0xB7,   0x387,  0x55F,  0x5F4,  0x2018, 0x2019,
      0x2024, 0x2027, 0xFE13, 0xFE52, 0xFE55, 0xFF07, 0xFF0E, 0xFF1A};
  switch (category(c)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_SK:
      return true;
    default:
      return std::find(kWordPunctuation.begin(), kWordPunctuation.end(), c) != kWordPunctuation.end();
  }
}

/// The property Cased (DerivedCoreProperties.txt) of a code point that is not case-ignorable: by category,
/// and the other such code points of Other_Lowercase and Other_Uppercase.
bool is_cased(char32_t c) {
  static constexpr std::array kOtherCased = {
      Range{0xAA, 0xAA},       Range{0xBA, 0xBA},       Range{0x2160, 0x217F},  Range{0x24B6, 0x24E9},
      Range{0x1F130, 0x1F149}, Range{0x1F150, 0x1F169}, Range{0x1F170, 0x1F189}};
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
      return true;
    default:
      return std::any_of(kOtherCased.begin(), kOtherCased.end(),
                         [c](Range range) { return range.first <= c && c <= range.last; });
  }
}

/// Whether the capital sigma at `at` has a cased letter before it and none after it, case-ignorable ones
/// passed over.
bool is_final_sigma(std::u32string_view text, std::size_t at) {
  const auto before = text.substr(0, at);
  const auto after = text.substr(at + 1);
  const auto last = std::find_if_not(before.rbegin(), before.rend(), is_case_ignorable);
  const auto next = std::find_if_not(after.begin(), after.end(), is_case_ignorable);
  return last != before.rend() && is_cased(*last) && (next == after.end() || !is_cased(*next));
}

bool is_stripped(char32_t c) { return is_space(c) || (0x1C <= c && c <= 0x1F); }

}  // namespace

std::size_t valid_utf8_prefix(std::string_view text) {
  std::size_t valid = 0;
  while (valid < text.size()) {
    utf8proc_int32_t c = 0;
    const auto length = next_code_point(text.substr(valid), c);
    if (length < 0) {
      break;
    }
    valid += static_cast<std::size_t>(length);
  }
  return valid;
}

std::u32string decode_utf8(std::string_view text) {
  std::u32string code_points;
  code_points.reserve(text.size());
  utf8proc_int32_t c = 0;
  for (auto length = next_code_point(text, c); length > 0; length = next_code_point(text, c)) {
    code_points.push_back(static_cast<char32_t>(c));
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  return code_points;
}

std::string encode_utf8(std::u32string_view code_points) {
  std::string text;
  for (const char32_t c : code_points) {
    std::array<utf8proc_uint8_t, 4> bytes{};
    const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(c), bytes.data());
    text.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length));
  }
  return text;
}

bool is_letter(char32_t c) {
  const auto of_c = category(c);
  return UTF8PROC_CATEGORY_LU <= of_c && of_c <= UTF8PROC_CATEGORY_LO;
}

bool is_number(char32_t c) {
  const auto of_c = category(c);
  return UTF8PROC_CATEGORY_ND <= of_c && of_c <= UTF8PROC_CATEGORY_NO;
}

bool is_space(char32_t c) {
  const auto of_c = category(c);
  return (0x9 <= c && c <= 0xD) || c == 0x85 ||
         (UTF8PROC_CATEGORY_ZS <= of_c && of_c <= UTF8PROC_CATEGORY_ZP);
}

std::u32string_view strip(std::u32string_view text) {
  const auto first = std::find_if_not(text.begin(), text.end(), is_stripped);
  const auto last = std::find_if_not(text.rbegin(), std::make_reverse_iterator(first), is_stripped);
  return {first, last.base()};
}

std::u32string collapse_white_space(std::u32string_view text) {
  std::u32string collapsed;
  bool in_white_space = false;
  for (const char32_t c : text) {
    const bool space = is_space(c);
    if (!space) {
      collapsed.push_back(c);
    } else if (!in_white_space) {
      collapsed.push_back(U' ');
    }
    in_white_space = space;
  }
  return collapsed;
}

std::u32string to_lower(std::u32string_view text) {
  std::u32string lower;
  lower.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    if (c == kCapitalIWithDot) {
      lower += U"i\u0307";
    } else if (c == kCapitalSigma) {
      lower.push_back(is_final_sigma(text, i) ? kFinalSigma : kSmallSigma);
    } else {
      lower.push_back(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return lower;
}

}  // namespace clip_lora::text
