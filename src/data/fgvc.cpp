#include <map>

#include "benchmark_list.hpp"
#include "clip_lora/core/errors.hpp"
#include "clip_lora/data/missing_data.hpp"
#include "id_name_lines.hpp"
#include "paths.hpp"
#include "text_file.hpp"

namespace clip_lora::data {
namespace {

namespace fs = std::filesystem;

using Labels = std::map<std::string, int>;

/// Lines "0034309 Boeing 737-200": a picture's name without `.jpg`, and its variant.
std::vector<Item> read_split(const fs::path& folder, const std::string& split, const Labels& labels) {
  const fs::path file = folder / ("images_variant_" + split + ".txt");
  std::vector<Item> items;
  for (const IdNameLine& line : read_id_name_lines(file)) {
    const auto found = labels.find(line.name);
    if (found == labels.end()) {
      std::vector<std::string> variants;
      for (const auto& [variant, label] : labels) variants.push_back(variant);
      throw DataError("data set 'fgvc': '" + file.string() + "', line " + std::to_string(line.number) +
                      ": '" + line.name + "' is no line of variants.txt" + did_you_mean(line.name, variants));
    }
    items.push_back({(folder / "images" / (line.id + ".jpg")).string(), found->second});
  }
  if (items.empty())
    throw DataError("data set 'fgvc': '" + file.string() + "' is empty, expected at least one line");
  return items;
}

/// The archive holds the data set in a folder of its own.
void require_files(const fs::path& folder) {
  const fs::path inner = folder / "data";
  for (const std::string name : {"variants.txt", "images_variant_train.txt", "images_variant_val.txt",
                                 "images_variant_test.txt", "images"}) {
    if (is_there(folder / name)) continue;
    const std::string hint = is_there(inner / name) ? "move what is in '" + inner.string() + "' one folder up"
                                                    : "DATASETS.md says where it comes from";
    const std::string problem = "data set 'fgvc': no '" + (folder / name).string() + "' (hint: " + hint + ")";
    if (name == "images" && !is_there(inner / name)) throw MissingData(problem);
    throw DataError(problem);
  }
}

Dataset read_fgvc(const fs::path& folder) {
  require_files(folder);
  Dataset dataset;
  dataset.name = "fgvc";
  Labels labels;
  for (const std::string& variant : read_lines(folder / "variants.txt")) {
    const auto [known, is_new] = labels.try_emplace(variant, static_cast<int>(dataset.class_names.size()));
    if (!is_new) throw DataError("data set 'fgvc': variants.txt has '" + variant + "' twice");
    dataset.class_names.push_back(with_spaces(variant));
  }
  dataset.train = read_split(folder, "train", labels);
  dataset.val = read_split(folder, "val", labels);
  dataset.test = read_split(folder, "test", labels);
  dataset.warnings = find_oddities(dataset);
  return dataset;
}

}  // namespace

Benchmark fgvc() {
  return {.name = "fgvc",
          .aliases = {"fgvc_aircraft"},
          .folders = {"fgvc_aircraft"},
          .contents = "images/, variants.txt and images_variant_{train,val,test}.txt",
          .templates = {"a photo of a {}, a type of aircraft."},
          .read = read_fgvc};
}

}  // namespace clip_lora::data
