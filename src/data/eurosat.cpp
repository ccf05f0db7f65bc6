#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_eurosat(const std::filesystem::path& folder) {
  return read_coop_folder("eurosat", folder, "2750", "split_zhou_EuroSAT.json");
}

}  // namespace

Benchmark eurosat() {
  return {.name = "eurosat",
          .aliases = {},
          .folders = {"eurosat"},
          .contents = "2750/ and split_zhou_EuroSAT.json",
          .templates = {"a centered satellite photo of {}."},
          .read = read_eurosat};
}

}  // namespace clip_lora::data
