#include "html_unescape.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "embedded.hpp"

namespace clip_lora::text {
namespace {

constexpr char32_t kReplacement = U'\uFFFD';
constexpr char32_t kLastCodePoint = 0x10FFFF;
constexpr std::size_t kLongestName = 32;  // code points that Python takes for a name, the `;` not counted
constexpr std::size_t kShortestName = 2;

/// A part of the text, from `&` on, and what it stands for.
struct Reference {
  std::size_t length;
  std::u32string meaning;
};

struct Entity {
  std::string_view name;  ///< without `&`; with `;` unless the standard lets it go
  std::u32string meaning;
};

Entity parse_entity(std::string_view line) {
  const auto tab = line.find('\t');
  Entity entity{line.substr(0, tab), {}};
  const char* const end = line.data() + line.size();
  for (const char* at = line.data() + tab; at != end;) {
    std::uint32_t code_point = 0;
    at = std::from_chars(at + 1, end, code_point, 16).ptr;
    entity.meaning.push_back(code_point);
  }
  return entity;
}

/// All named references, sorted by name.
const std::vector<Entity>& entities() {
  static const auto table = [] {
    std::vector<Entity> parsed;
    for (const auto line : lines_of(embedded_html_entities())) {
      parsed.push_back(parse_entity(line));
    }
    return parsed;
  }();
  return table;
}

const Entity* find_entity(std::u32string_view name) {
  const auto less = [](const Entity& entity, std::u32string_view wanted) {
    return std::lexicographical_compare(entity.name.begin(), entity.name.end(), wanted.begin(), wanted.end(),
                                        [](char a, char32_t b) { return static_cast<char32_t>(a) < b; });
  };
  const auto same = [](char a, char32_t b) { return static_cast<char32_t>(a) == b; };
  const auto found = std::lower_bound(entities().begin(), entities().end(), name, less);
  const bool known = found != entities().end() &&
                     std::equal(found->name.begin(), found->name.end(), name.begin(), name.end(), same);
  return known ? &*found : nullptr;
}

/// Control characters other than white space, and the non-characters: a number that names one stands for
/// nothing.
bool is_dropped(char32_t c) {
  const bool control = (0x1 <= c && c <= 0x8) || c == 0xB || (0xE <= c && c <= 0x1F) || c == 0x7F;
  const bool not_a_character = (0xFDD0 <= c && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
  return control || not_a_character;
}

/// What the number of a numeric reference stands for; 0x80 … 0x9F are read as windows-1252 where it has a
/// character.
std::u32string meaning_of(char32_t number) {
  static constexpr std::array<char16_t, 32> kWindows1252 = {
      0x20AC, 0x81,   0x201A, 0x192,  0x201E, 0x2026, 0x2020, 0x2021, 0x2C6,  0x2030, 0x160,
      0x2039, 0x152,  0x8D,   0x17D,  0x8F,   0x90,   0x2018, 0x2019, 0x201C, 0x201D, 0x2022,
      0x2013, 0x2014, 0x2DC,  0x2122, 0x161,  0x203A, 0x153,  0x9D,   0x17E,  0x178};
  if (0x80 <= number && number <= 0x9F) {
    return {kWindows1252[number - 0x80]};
  }
  const bool surrogate = 0xD800 <= number && number <= 0xDFFF;
  if (number == 0 || surrogate || number > kLastCodePoint) {
    return {kReplacement};
  }
  return is_dropped(number) ? std::u32string{} : std::u32string{number};
}

/// Value of an ASCII digit in base 10 or 16.
std::optional<char32_t> digit_value(char32_t c, char32_t base) {
  if (U'0' <= c && c <= U'9') {
    return c - U'0';
  }
  const char32_t lower = c | 0x20;
  if (base == 16 && U'a' <= lower && lower <= U'f') {
    return lower - U'a' + 10;
  }
  return std::nullopt;
}

/// Reads `&#233;` or `&#xE9;` at the start of `text`, which starts with "&#".
std::optional<Reference> numeric_reference(std::u32string_view text) {
  const bool hexadecimal = text.size() > 2 && (text[2] | 0x20) == U'x';
  const char32_t base = hexadecimal ? 16 : 10;
  const std::size_t first_digit = hexadecimal ? 3 : 2;
  std::size_t end = first_digit;
  char32_t number = 0;
  for (; end < text.size(); ++end) {
    const auto digit = digit_value(text[end], base);
    if (!digit) {
      break;
    }
    number = std::min(number * base + *digit, kLastCodePoint + 1);  // any larger number means the same
  }
  if (end == first_digit) {
    return std::nullopt;
  }
  if (end < text.size() && text[end] == U';') {
    ++end;
  }
  return Reference{end, meaning_of(number)};
}

/// Reads `&eacute;` at the start of `text`, which starts with "&": the longest name that the standard has.
std::optional<Reference> named_reference(std::u32string_view text) {
  const auto name = text.substr(1, std::min(text.find_first_of(U"\t\n\f <&#;", 1) - 1, kLongestName));
  if (name.empty()) {
    return std::nullopt;
  }
  std::size_t length = name.size();
  if (length + 1 < text.size() && text[length + 1] == U';') {
    ++length;
  }
  for (; length >= kShortestName; --length) {
    if (const auto* entity = find_entity(text.substr(1, length))) {
      return Reference{length + 1, entity->meaning};
    }
  }
  return std::nullopt;
}

}  // namespace

std::u32string html_unescape(std::u32string_view text) {
  std::u32string unescaped;
  while (!text.empty()) {
    const auto plain = text.substr(0, text.find(U'&'));
    unescaped += plain;
    text.remove_prefix(plain.size());
    if (text.empty()) {
      break;
    }
    const auto reference = text.starts_with(U"&#") ? numeric_reference(text) : named_reference(text);
    unescaped += reference ? reference->meaning : std::u32string(1, U'&');
    text.remove_prefix(reference ? reference->length : 1);
  }
  return unescaped;
}

}  // namespace clip_lora::text
