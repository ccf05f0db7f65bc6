#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_sun397(const std::filesystem::path& folder) {
  return read_coop_folder("sun397", folder, "SUN397", "split_zhou_SUN397.json");
}

}  // namespace

Benchmark sun397() {
  return {.name = "sun397",
          .aliases = {},
          .folders = {"sun397", "SUN397"},
          .contents = "SUN397/ and split_zhou_SUN397.json",
          .templates = {"a photo of a {}."},
          .read = read_sun397};
}

}  // namespace clip_lora::data
