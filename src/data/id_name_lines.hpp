#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

namespace clip_lora::data {

/// A line of a list that says what is what: "n01440764 great white shark".
struct IdNameLine {
  std::size_t number = 0;  ///< of the line, from 1
  std::string id;          ///< its first word
  std::string name;        ///< the rest
};

/// The lines of a text file without white space at their ends; those that are empty are left out. Throws
/// DataError for a file that cannot be read.
std::vector<std::string> read_lines(const std::filesystem::path& file);

/// The lines of such a list. Throws DataError as read_lines, and for a line of one word.
std::vector<IdNameLine> read_id_name_lines(const std::filesystem::path& file);

}  // namespace clip_lora::data
