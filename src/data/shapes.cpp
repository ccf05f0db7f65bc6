#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/readers.hpp"

namespace clip_lora::data {

Dataset load_shapes(const std::filesystem::path& root_path) {
  return load_coop_dataset("shapes", root_path, {"shapes"}, "images", "split_zhou_Shapes.json");
}

}  // namespace clip_lora::data
