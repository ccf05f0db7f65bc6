#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace clip_lora::text {

/// The bytes at the start of `text` that are valid UTF-8: text.size() if all are.
std::size_t valid_utf8_prefix(std::string_view text);

/// Code points of `text`, which must be valid UTF-8.
std::u32string decode_utf8(std::string_view text);

std::string encode_utf8(std::u32string_view code_points);

bool is_letter(char32_t c);  ///< categories Lu, Ll, Lt, Lm, Lo: `\p{L}`
bool is_number(char32_t c);  ///< categories Nd, Nl, No: `\p{N}`
bool is_space(char32_t c);   ///< the property White_Space: `\s`

/// Python's `str.strip()`: what it takes off is white space and the four separators U+001C … U+001F.
std::u32string_view strip(std::u32string_view text);

/// Every run of white space becomes one space: `re.sub(r'\s+', ' ', text)`.
std::u32string collapse_white_space(std::u32string_view text);

/// The full lower-casing of the Unicode standard, section 3.13, as `str.lower()` does it: U+0130 becomes two
/// code points, and a capital sigma that ends a word becomes a final sigma.
std::u32string to_lower(std::u32string_view text);

}  // namespace clip_lora::text
