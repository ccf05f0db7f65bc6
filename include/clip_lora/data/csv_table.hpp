#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace clip_lora::data {

/// One record of a table.
struct CsvRow {
  std::size_t line = 0;  ///< of the file, from 1, in which it begins
  std::vector<std::string> fields;
};

/// The records of comma-separated values as RFC 4180 has them; blank lines are none, and spaces around a
/// field are not of it. Throws DataError, which begins with `source` and the line, for quotation marks that
/// do not match.
std::vector<CsvRow> parse_csv(std::string_view text, const std::string& source);

}  // namespace clip_lora::data
