#include "paths.hpp"

#include "clip_lora/core/errors.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

fs::file_status status_of(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (fs::status_known(status)) return status;  // "not found" is known
  throw DataError("'" + path.string() + "' cannot be looked at: " + error.message());
}

}  // namespace

bool is_there(const fs::path& path) { return fs::exists(status_of(path)); }

bool is_folder(const fs::path& path) { return fs::is_directory(status_of(path)); }

}  // namespace clip_lora::data
