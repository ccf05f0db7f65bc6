#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_food101(const std::filesystem::path& folder) {
  return read_coop_folder("food101", folder, "images", "split_zhou_Food101.json");
}

}  // namespace

Benchmark food101() {
  return {.name = "food101",
          .aliases = {},
          .folders = {"food-101", "Food101"},
          .contents = "images/ and split_zhou_Food101.json",
          .templates = {"a photo of {}, a type of food."},
          .read = read_food101};
}

}  // namespace clip_lora::data
