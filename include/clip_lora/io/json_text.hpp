#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace clip_lora::io {

// `Json` is nlohmann::json, or ordered_json where the order of names is to be kept.

/// Parses JSON that must be an object. No object in it may have a name twice, and nothing may be nested
/// deeper than 64. `source` begins the message of the CheckpointError, which for bad text says where.
template <typename Json = nlohmann::json>
Json parse_json_object(std::string_view text, const std::string& source);

/// The same of a file of at most 16 MiB. Throws CheckpointError also if it cannot be read.
template <typename Json = nlohmann::json>
Json read_json_object(const std::filesystem::path& path, const std::string& source);

/// A value for an error message: its JSON, cut after 80 bytes.
template <typename Json>
std::string brief(const Json& value);

/// `json` as text for a file or a reader; bytes that are no UTF-8 become U+FFFD.
std::string json_text(const nlohmann::ordered_json& json, int indent = -1);

}  // namespace clip_lora::io
