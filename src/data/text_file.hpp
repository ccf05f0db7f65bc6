#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace clip_lora::data {

/// The bytes of a file without a UTF-8 byte order mark; nothing if it cannot be read.
std::optional<std::string> read_text_file(const std::filesystem::path& file);

/// The line, from 1, of the first byte that is no UTF-8; nothing if all of `text` is.
std::optional<std::size_t> line_without_utf8(std::string_view text);

/// Without white space (ASCII) at its ends.
std::string_view trimmed(std::string_view text);

/// Whether `text` is nothing but digits.
bool is_digits(std::string_view text);

/// ASCII letters in lower case.
std::string lower_case(std::string_view text);

/// 'a', 'b', … and 7 more: join_capped of the names in quotation marks.
std::string join_quoted(const std::vector<std::string>& names, std::size_t limit = 10);

/// `_` to spaces, as CLIP's prompts want names.
std::string with_spaces(std::string name);

}  // namespace clip_lora::data
