#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace clip_lora::data {

/// The object in a split file. Throws DataError naming the file: it cannot be read, is no JSON object, has a
/// name twice or is nested deeper than any split.
nlohmann::json read_split_json(const std::filesystem::path& file);

}  // namespace clip_lora::data
