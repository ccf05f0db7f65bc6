#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace clip_lora::text {

inline constexpr std::string_view kEndOfWord = "</w>";

/// A byte and what the merges write for it.
struct ByteSymbol {
  std::uint8_t byte;
  std::string symbol;
};

/// The 256 bytes in the order of their ids: first those that are printable in Latin-1, each written as its
/// character, then the others, written as the characters from U+0100 on.
std::vector<ByteSymbol> byte_symbols();

}  // namespace clip_lora::text
