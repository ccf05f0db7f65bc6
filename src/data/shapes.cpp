#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_shapes(const std::filesystem::path& folder) {
  return read_coop_folder("shapes", folder, "images", "split_zhou_Shapes.json");
}

}  // namespace

Benchmark shapes() {
  return {.name = "shapes",
          .aliases = {},
          .folders = {"shapes"},
          .contents = "images/ and split_zhou_Shapes.json",
          .templates = {"a photo of a {}."},
          .read = read_shapes};
}

}  // namespace clip_lora::data
