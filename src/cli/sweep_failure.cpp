#include "sweep_failure.hpp"

#include <nlohmann/json.hpp>
#include <system_error>

#include "clip_lora/core/errors.hpp"
#include "clip_lora/core/log.hpp"
#include "clip_lora/core/process.hpp"
#include "clip_lora/core/version.hpp"
#include "clip_lora/io/atomic_file.hpp"
#include "clip_lora/io/json_text.hpp"

namespace clip_lora::cli {

namespace fs = std::filesystem;

std::string recorded_failure(const fs::path& folder) {
  const fs::path file = folder / kFailureFile;
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return {};
  try {
    return io::read_json_object(file, "").value("id", "unknown");
  } catch (const std::exception&) {
    return "unknown";  // damaged, or gone just now
  }
}

void record_failure(const fs::path& folder, const std::string& label, const std::string& reason) {
  const nlohmann::ordered_json failure = {
      {"run", label}, {"error", reason}, {"host", host_name()}, {"version", kVersion}, {"id", random_id()}};
  try {
    io::write_atomically(folder / kFailureFile, io::json_text(failure, 2) + "\n");
  } catch (const ConfigError& error) {
    log_warning(error.what());
  }
}

void forget_failure(const fs::path& folder) {
  std::error_code ignored;
  fs::remove(folder / kFailureFile, ignored);
}

}  // namespace clip_lora::cli
