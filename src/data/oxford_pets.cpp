#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_oxford_pets(const std::filesystem::path& folder) {
  return read_coop_folder("oxford_pets", folder, "images", "split_zhou_OxfordPets.json");
}

}  // namespace

Benchmark oxford_pets() {
  return {.name = "oxford_pets",
          .aliases = {},
          .folders = {"oxford_pets", "OxfordPets"},
          .contents = "images/ and split_zhou_OxfordPets.json",
          .templates = {"a photo of a {}, a type of pet."},
          .read = read_oxford_pets};
}

}  // namespace clip_lora::data
