#pragma once

#include <string_view>
#include <vector>

namespace clip_lora::text {

inline constexpr std::u32string_view kStartOfTextWord = U"<|startoftext|>";
inline constexpr std::u32string_view kEndOfTextWord = U"<|endoftext|>";

/// The words of lower-cased `text`, in order, as OpenAI's pattern finds them (CLIP's simple_tokenizer.py; the
/// alternatives are tried from left to right, regardless of case):
///   <|startoftext|> | <|endoftext|> | 's | 't | 're | 've | 'm | 'll | 'd | [\p{L}]+ | [\p{N}] |
///   [^\s\p{L}\p{N}]+
/// White space lies between words. They point into `text`.
std::vector<std::u32string_view> find_words(std::u32string_view text);

}  // namespace clip_lora::text
