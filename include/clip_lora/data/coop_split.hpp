#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// Reads a CoOp split file `{"train"|"val"|"test": [[relative path, label, class name], …]}`; paths are taken relative
/// to `image_folder`. Throws DataError naming the file, the split and the entry for malformed JSON, wrong types, labels
/// that skip, a label with two names, or a split that is missing or empty.
Dataset read_coop_split(const std::string& name, const std::filesystem::path& split_file,
                        const std::filesystem::path& image_folder);

/// The data set whose folder under `root_path` is the first existing one of `folders`, with images under
/// `image_folder` and the split file `split_file` in it. Throws DataError listing every folder tried.
Dataset load_coop_dataset(const std::string& name, const std::filesystem::path& root_path,
                          const std::vector<std::string>& folders, const std::string& image_folder,
                          const std::string& split_file);

}  // namespace clip_lora::data
