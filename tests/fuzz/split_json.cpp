#include "clip_lora/data/coop_split.hpp"
#include "clip_lora/data/own_dataset.hpp"
#include "targets.hpp"

namespace clip_lora::fuzz {
namespace {

void check(const data::Dataset& dataset) {
  const int classes = static_cast<int>(dataset.class_names.size());
  for (const auto* items : {&dataset.train, &dataset.val, &dataset.test}) {
    for (const data::Item& item : *items)
      require(item.label >= 0 && item.label < classes, "a label has a name");
  }
}

void run(std::string_view input) {
  static const auto picture = scratch_file("a.png", "");  // which a split may name
  const auto file = scratch_file("split.json", input);
  read_whatever_it_is([&] { check(data::read_coop_split("x", file, scratch_folder())); });
  read_whatever_it_is([&] { check(data::load_own_dataset(file, {})); });
}

std::vector<std::string> seeds() {
  return {
      R"({"train": [["a.png", 0, "cat"], ["b.png", 1, "dog_s"]], "val": [["a.png", 1, "dog_s"]], "test": [["b.png", 0, "cat"]]})",
      R"({"image_folder": ".", "train": [["a.png", 0, "1"], ["b.png", 1, "2"]], "val": [], "test": [["c.png", 0, "1"]]})",
      R"({"train": [["a.png", 0, "cat"], ["../a.png", 2, "dog"]], "test": [["/x", 0, "x"]], "seed": 1})",
      R"({"train": [["a.png", 18446744073709551615, "cat"], ["a.png", -1, "x"]], "val": 3, "test": {}})",
      R"({"image_folder": 3, "train": [[)" + std::string(100, '[') + std::string(100, ']') + "]]}",
      "\xef\xbb\xbf{\"train\": [[\"a\\u0000.png\", 0, \"\\ud83d\\ude00\"]], \"train\": []}"};
}

}  // namespace

const Target split_json = {"split_json", run, seeds};

}  // namespace clip_lora::fuzz
