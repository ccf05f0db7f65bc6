#pragma once

#include <filesystem>

#include "clip_lora/data/dataset.hpp"

namespace clip_lora::data {

/// EuroSAT: `eurosat/2750`, split_zhou_EuroSAT.json.
Dataset load_eurosat(const std::filesystem::path& root_path);

/// Caltech101: `caltech-101` or `Caltech101`, 101_ObjectCategories, split_zhou_Caltech101.json.
Dataset load_caltech101(const std::filesystem::path& root_path);

/// The procedural pictures of `clip_lora demo`: `shapes/images`, split_zhou_Shapes.json.
Dataset load_shapes(const std::filesystem::path& root_path);

}  // namespace clip_lora::data
