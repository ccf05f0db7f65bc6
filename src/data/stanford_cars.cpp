#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_stanford_cars(const std::filesystem::path& folder) {
  return read_coop_folder("stanford_cars", folder, "", "split_zhou_StanfordCars.json");
}

}  // namespace

Benchmark stanford_cars() {
  return {.name = "stanford_cars",
          .aliases = {},
          .folders = {"stanford_cars", "StanfordCars"},
          .contents = "cars_train/, cars_test/ and split_zhou_StanfordCars.json",
          .templates = {"a photo of a {}."},
          .read = read_stanford_cars};
}

}  // namespace clip_lora::data
