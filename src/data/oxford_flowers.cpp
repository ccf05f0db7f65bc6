#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_oxford_flowers(const std::filesystem::path& folder) {
  return read_coop_folder("oxford_flowers", folder, "jpg", "split_zhou_OxfordFlowers.json");
}

}  // namespace

Benchmark oxford_flowers() {
  return {.name = "oxford_flowers",
          .aliases = {},
          .folders = {"oxford_flowers", "Flower102"},
          .contents = "jpg/ and split_zhou_OxfordFlowers.json",
          .templates = {"a photo of a {}, a type of flower."},
          .read = read_oxford_flowers};
}

}  // namespace clip_lora::data
