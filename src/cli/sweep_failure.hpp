#pragma once

#include <filesystem>
#include <string>

namespace clip_lora::cli {

/// `error.json` in the folder of a run that failed; the next success takes it away.
inline constexpr const char* kFailureFile = "error.json";

/// What tells the failure that is recorded in `folder` from any other; empty: none is.
std::string recorded_failure(const std::filesystem::path& folder);

/// Records why a run failed. What cannot be written is warned of.
void record_failure(const std::filesystem::path& folder, const std::string& label, const std::string& reason);

void forget_failure(const std::filesystem::path& folder);

}  // namespace clip_lora::cli
