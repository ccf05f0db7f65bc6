#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace clip_lora::data {

/// What a file of class names says.
struct ClassNames {
  std::vector<std::string> names;              ///< in the file's order
  std::map<std::string, std::string> renamed;  ///< by folder or label; empty if the file is a plain list
};

/// Reads class names: a JSON array of names, a JSON object {folder: name}, or text of one name per line, or
/// of `folder: name` in every line. Throws ConfigError naming file and line: missing, no UTF-8, empty, a
/// folder named twice.
ClassNames read_class_names(const std::filesystem::path& file);

}  // namespace clip_lora::data
