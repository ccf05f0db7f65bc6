#include "benchmark_list.hpp"
#include "clip_lora/data/coop_split.hpp"

namespace clip_lora::data {
namespace {

Dataset read_ucf101(const std::filesystem::path& folder) {
  return read_coop_folder("ucf101", folder, "UCF-101-midframes", "split_zhou_UCF101.json");
}

}  // namespace

Benchmark ucf101() {
  return {.name = "ucf101",
          .aliases = {},
          .folders = {"ucf101", "UCF101"},
          .contents = "UCF-101-midframes/ and split_zhou_UCF101.json",
          .templates = {"a photo of a person doing {}."},
          .read = read_ucf101};
}

}  // namespace clip_lora::data
