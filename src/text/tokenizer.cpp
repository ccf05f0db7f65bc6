#include "clip_lora/text/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <unordered_map>

#include "byte_symbols.hpp"
#include "clip_lora/core/errors.hpp"
#include "embedded.hpp"
#include "html_unescape.hpp"
#include "unicode.hpp"
#include "word_pattern.hpp"

namespace clip_lora::text {
namespace {

// Ids 0 … 255 are bytes, 256 … 511 bytes that end a word; then come the merges.
constexpr std::int64_t kBytes = 256;
constexpr std::size_t kShownBytes = 200;  // of a text in a message

std::uint64_t pair_key(std::int64_t left, std::int64_t right) {
  return static_cast<std::uint64_t>(left) << 32 | static_cast<std::uint64_t>(right);
}

bool is_utf8_continuation(char byte) { return (static_cast<std::uint8_t>(byte) & 0xC0) == 0x80; }

bool is_control(char byte) { return static_cast<std::uint8_t>(byte) < 0x20 || byte == 0x7F; }

/// The start of `text` on one line: control characters, and what is not UTF-8, stand as \xNN.
std::string shown(std::string_view text) {
  auto length = std::min(text.size(), kShownBytes);
  while (length < text.size() && length > 0 && is_utf8_continuation(text[length])) {
    --length;
  }
  std::string result;
  std::size_t valid_end = 0;
  for (std::size_t at = 0; at < length; ++at) {
    if (at >= valid_end) {
      valid_end = at + valid_utf8_prefix(text.substr(at, length - at));
    }
    if (at < valid_end && !is_control(text[at])) {
      result += text[at];
    } else {
      std::array<char, 5> escaped{};
      std::snprintf(escaped.data(), escaped.size(), "\\x%02X", static_cast<std::uint8_t>(text[at]));
      result += escaped.data();
    }
  }
  return result + (length < text.size() ? "…" : "");
}

void check_utf8(std::string_view text) {
  const auto valid = valid_utf8_prefix(text);
  if (valid < text.size()) {
    throw DataError("text '" + shown(text) + "': expected UTF-8, but byte " + std::to_string(valid) +
                    " starts no character (hint: convert the file it comes from to UTF-8)");
  }
}

/// CLIP's basic_clean and whitespace_clean, without ftfy, and lower case.
std::u32string clean(std::string_view text) {
  const auto unescaped = html_unescape(html_unescape(decode_utf8(text)));
  const auto collapsed = collapse_white_space(strip(unescaped));
  return to_lower(strip(collapsed));
}

}  // namespace

Tokenizer::Tokenizer() {
  std::unordered_map<std::string, std::int64_t> ids;  // of each symbol
  const auto merges = lines_of(embedded_bpe_merges());
  ids.reserve(2 * kBytes + merges.size());
  merges_.reserve(merges.size());
  for (const auto& [byte, symbol] : byte_symbols()) {
    const auto id = static_cast<std::int64_t>(ids.size() / 2);
    byte_ids_[byte] = id;
    ids.emplace(symbol, id);
    ids.emplace(symbol + std::string(kEndOfWord), id + kBytes);
  }
  for (const auto line : merges) {
    const auto space = line.find(' ');
    const std::string left(line.substr(0, space));
    const std::string right(line.substr(space + 1));
    const auto id = static_cast<std::int64_t>(ids.size());
    merges_.emplace(pair_key(ids.at(left), ids.at(right)), id);
    ids.emplace(left + right, id);
  }
  assert(ids.size() == static_cast<std::size_t>(kStartOfText));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
  check_utf8(text);
  const auto cleaned = clean(text);
  std::vector<std::int64_t> ids;
  for (const auto word : find_words(cleaned)) {
    if (word == kStartOfTextWord) {
      ids.push_back(kStartOfText);
    } else if (word == kEndOfTextWord) {
      ids.push_back(kEndOfText);
    } else {
      const auto word_ids = encode_word(encode_utf8(word));
      ids.insert(ids.end(), word_ids.begin(), word_ids.end());
    }
  }
  return ids;
}

std::vector<std::int64_t> Tokenizer::encode_word(std::string_view word) const {
  std::vector<std::int64_t> ids;
  for (const char byte : word) {
    ids.push_back(byte_ids_[static_cast<std::uint8_t>(byte)]);
  }
  ids.back() += kBytes;
  while (const auto earliest = earliest_merge(ids)) {
    apply_merge(*earliest, ids);
  }
  return ids;
}

std::optional<Tokenizer::Merge> Tokenizer::earliest_merge(const std::vector<std::int64_t>& ids) const {
  std::optional<Merge> earliest;
  for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
    const auto found = merges_.find(pair_key(ids[i], ids[i + 1]));
    if (found != merges_.end() && (!earliest || found->second < earliest->id)) {
      earliest = Merge{ids[i], ids[i + 1], found->second};
    }
  }
  return earliest;
}

void Tokenizer::apply_merge(const Merge& merge, std::vector<std::int64_t>& ids) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < ids.size(); ++kept) {
    const bool is_pair = i + 1 < ids.size() && ids[i] == merge.left && ids[i + 1] == merge.right;
    ids[kept] = is_pair ? merge.id : ids[i];
    i += is_pair ? 2 : 1;
  }
  ids.resize(kept);
}

std::vector<std::int64_t> Tokenizer::tokenize(std::string_view text, int context_length,
                                              Overlong overlong) const {
  assert(context_length >= 2);
  const auto room = static_cast<std::size_t>(context_length) - 2;
  auto ids = encode(text);
  if (ids.size() > room && overlong == Overlong::kError) {
    throw DataError("text '" + shown(text) + "': expected at most " + std::to_string(room) + " tokens, got " +
                    std::to_string(ids.size()) + " (hint: shorten it; the context of " +
                    std::to_string(context_length) + " also holds the start and the end token)");
  }
  ids.resize(std::min(ids.size(), room));
  ids.insert(ids.begin(), kStartOfText);
  ids.push_back(kEndOfText);
  ids.resize(static_cast<std::size_t>(context_length));
  return ids;
}

}  // namespace clip_lora::text
