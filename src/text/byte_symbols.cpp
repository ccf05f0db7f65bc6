#include "byte_symbols.hpp"

#include "unicode.hpp"

namespace clip_lora::text {

std::vector<ByteSymbol> byte_symbols() {
  constexpr int kBytes = 256;
  const auto is_printable = [](int byte) {
    return ('!' <= byte && byte <= '~') || (0xA1 <= byte && byte <= 0xAC) || 0xAE <= byte;
  };
  std::vector<ByteSymbol> printable;
  std::vector<ByteSymbol> others;
  for (int byte = 0; byte < kBytes; ++byte) {
    auto& group = is_printable(byte) ? printable : others;
    const auto character = static_cast<char32_t>(is_printable(byte) ? byte : kBytes + group.size());
    group.push_back({static_cast<std::uint8_t>(byte), encode_utf8({&character, 1})});
  }
  printable.insert(printable.end(), others.begin(), others.end());
  return printable;
}

}  // namespace clip_lora::text
