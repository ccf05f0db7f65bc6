#include "text_file.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "clip_lora/core/errors.hpp"

namespace clip_lora::data {

std::optional<std::string> read_text_file(const std::filesystem::path& file) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  std::error_code ignored;
  std::ifstream stream(file, std::ios::binary);
  if (std::filesystem::is_directory(file, ignored) || !stream) return std::nullopt;
  std::string text{std::istreambuf_iterator<char>(stream), {}};
  if (stream.bad()) return std::nullopt;
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  return text;
}

std::optional<std::size_t> line_without_utf8(std::string_view text) {
  std::size_t line = 1;
  while (!text.empty()) {
    utf8proc_int32_t code_point = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                         static_cast<utf8proc_ssize_t>(text.size()), &code_point);
    if (length <= 0) return line;
    if (code_point == '\n') ++line;
    text.remove_prefix(static_cast<std::size_t>(length));
  }
  return std::nullopt;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kWhiteSpace = " \t\r\n\v\f";
  const std::size_t begin = text.find_first_not_of(kWhiteSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kWhiteSpace) - begin + 1);
}

bool is_digits(std::string_view text) {
  return text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::string lower_case(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

std::string join_quoted(const std::vector<std::string>& names, std::size_t limit) {
  std::vector<std::string> quoted;
  for (const std::string& name : names) {
    quoted.push_back("'");
    quoted.back().append(name).append("'");
  }
  return join_capped(quoted, limit);
}

std::string with_spaces(std::string name) {
  std::replace(name.begin(), name.end(), '_', ' ');
  return name;
}

}  // namespace clip_lora::data
