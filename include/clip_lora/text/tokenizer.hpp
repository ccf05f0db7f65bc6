#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace clip_lora::text {

inline constexpr int kContextLength = 77;
inline constexpr std::int64_t kVocabularySize = 49408;
inline constexpr std::int64_t kStartOfText = 49406;  ///< `<|startoftext|>`
inline constexpr std::int64_t kEndOfText =
    49407;  ///< `<|endoftext|>`, the largest id: argmax of a row finds it

enum class Overlong { kError, kTruncate };

/// OpenAI's byte-level BPE (CLIP's simple_tokenizer.py without ftfy): html-unescaped twice, white space
/// collapsed, lower-cased, split by its pattern, merged by the 48,894 merges that are embedded in the
/// library.
class Tokenizer {
 public:
  /// Reads the embedded merges.
  Tokenizer();

  /// Token ids of `text` (UTF-8) without the start and end tokens. Throws DataError if `text` is not valid
  /// UTF-8.
  std::vector<std::int64_t> encode(std::string_view text) const;

  /// <|startoftext|>, encode(text), <|endoftext|>, then zeros up to `context_length` (at least 2).
  /// A text that does not fit throws DataError naming it, or with kTruncate keeps its first ids and ends in
  /// <|endoftext|>.
  std::vector<std::int64_t> tokenize(std::string_view text, int context_length = kContextLength,
                                     Overlong overlong = Overlong::kError) const;

 private:
  std::vector<std::int64_t> encode_word(std::string_view word) const;
  /// What replaces two adjacent ids; nothing if no merge does.
  std::optional<std::int64_t> merged(std::int64_t left, std::int64_t right) const;

  std::array<std::int64_t, 256> byte_ids_;  ///< id of each byte; + 256 where it ends a word
  /// Key: two adjacent ids, the left one in the upper 32 bits. Value: the id of the two as one; ids of
  /// earlier merges are smaller.
  std::unordered_map<std::uint64_t, std::int64_t> merges_;
};

}  // namespace clip_lora::text
