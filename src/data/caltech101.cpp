#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/readers.hpp"

namespace clip_lora::data {

Dataset load_caltech101(const std::filesystem::path& root_path) {
  return load_coop_dataset("caltech101", root_path, {"caltech-101", "Caltech101"}, "101_ObjectCategories",
                           "split_zhou_Caltech101.json");
}

}  // namespace clip_lora::data
