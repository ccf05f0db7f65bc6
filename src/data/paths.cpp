#include "paths.hpp"

#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "text_file.hpp"

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

fs::path first_folder(const std::string& dataset, const std::vector<std::string>& folders,
                      const fs::path& root_path) {
  std::vector<std::string> tried;
  for (const std::string& name : folders) {
    if (is_folder(root_path / name)) return root_path / name;
    tried.push_back((root_path / name).string());
  }
  throw MissingData("data set '" + dataset + "': no folder; tried " + join_quoted(tried) +
                    " (hint: --root_path is the folder that holds them)");
}

}  // namespace clip_lora::data
