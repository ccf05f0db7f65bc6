#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_caltech101(const std::filesystem::path& folder) {
  return read_coop_folder("caltech101", folder, "101_ObjectCategories", "split_zhou_Caltech101.json");
}

}  // namespace

Benchmark caltech101() {
  return {.name = "caltech101",
          .aliases = {},
          .folders = {"caltech-101", "Caltech101"},
          .contents = "101_ObjectCategories/ and split_zhou_Caltech101.json",
          .templates = {"a photo of a {}."},
          .read = read_caltech101};
}

}  // namespace clip_lora::data
