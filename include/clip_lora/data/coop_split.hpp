#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// Whether a split file must have images in `val`. The benchmarks' must: few-shot sampling draws from it
/// first.
enum class ValSplit { kRequired, kOptional };

/// Reads a CoOp split file `{"train"|"val"|"test": [[relative path, label, class name], …]}`; paths are taken
/// relative to `image_folder`, other keys are ignored. Throws DataError naming the file, the split and the
/// entry for malformed JSON, wrong types, labels that skip, a label with two names, or a split that is
/// missing or empty (`val` may be, where it is optional).
Dataset read_coop_split(const std::string& name, const std::filesystem::path& split_file,
                        const std::filesystem::path& image_folder, ValSplit val = ValSplit::kRequired);

/// The data set in `folder`: images under its `image_folder` ("": itself), listed by its `split_file`. Throws
/// DataError as above, and if one of the two is missing.
Dataset read_coop_folder(const std::string& name, const std::filesystem::path& folder,
                         const std::string& image_folder, const std::string& split_file);

}  // namespace clip_lora::data
