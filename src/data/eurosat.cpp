#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/readers.hpp"

namespace clip_lora::data {

Dataset load_eurosat(const std::filesystem::path& root_path) {
  return load_coop_dataset("eurosat", root_path, {"eurosat"}, "2750", "split_zhou_EuroSAT.json");
}

}  // namespace clip_lora::data
