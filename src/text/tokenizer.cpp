#include "clip_lora/text/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>

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
  constexpr std::int64_t kGone = -1;
  const std::size_t end = word.size();
  std::vector<std::int64_t> ids;
  std::vector<std::size_t> next, previous;  // place of the id that is there behind and before each
  for (std::size_t at = 0; at < end; ++at) {
    ids.push_back(byte_ids_[static_cast<std::uint8_t>(word[at])]);
    next.push_back(at + 1);
    previous.push_back(at - 1);
  }
  ids.back() += kBytes;

  // The earliest merge that there is comes first, at its leftmost place: what it makes is only in later ones.
  using Candidate =
      std::pair<std::int64_t, std::size_t>;  // the id that it makes, and the place of its left one
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> candidates;
  const auto merged_at = [&](std::size_t at) {
    return ids[at] == kGone || next[at] == end ? std::nullopt : merged(ids[at], ids[next[at]]);
  };
  const auto propose = [&](std::size_t at) {
    if (const auto id = merged_at(at)) candidates.emplace(*id, at);
  };
  for (std::size_t at = 0; at < end; ++at) propose(at);
  while (!candidates.empty()) {
    const auto [id, at] = candidates.top();
    candidates.pop();
    if (merged_at(at) != id) continue;  // another merge has taken one of the two
    ids[at] = id;
    ids[next[at]] = kGone;
    next[at] = next[next[at]];
    if (next[at] < end) previous[next[at]] = at;
    propose(at);
    if (at > 0) propose(previous[at]);
  }
  std::erase(ids, kGone);
  return ids;
}

std::optional<std::int64_t> Tokenizer::merged(std::int64_t left, std::int64_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? std::nullopt : std::optional(found->second);
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
