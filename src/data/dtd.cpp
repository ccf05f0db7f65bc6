#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_dtd(const std::filesystem::path& folder) {
  return read_coop_folder("dtd", folder, "images", "split_zhou_DescribableTextures.json");
}

}  // namespace

Benchmark dtd() {
  return {.name = "dtd",
          .aliases = {},
          .folders = {"dtd", "DTD"},
          .contents = "images/ and split_zhou_DescribableTextures.json",
          .templates = {"{} texture."},
          .read = read_dtd};
}

}  // namespace clip_lora::data
