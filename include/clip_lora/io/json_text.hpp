#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace clip_lora::io {

/// Parses JSON that must be an object. No object in it may have a name twice, and nothing may be nested
/// deeper than 64. `source` begins the message of the CheckpointError, which for bad text says where.
nlohmann::json parse_json_object(std::string_view text, const std::string& source);

/// A value for an error message: its JSON, cut after 80 bytes.
std::string brief(const nlohmann::json& value);

}  // namespace clip_lora::io
